from msgspec import Struct


class Fields(Struct, frozen=True, kw_only=True):
    rested_s: tuple[float, ...] = ()
