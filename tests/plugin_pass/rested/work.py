import time

from bench.passes.base import Context, Pass


class Rested(Pass):
    phases = {"rested": "resting before one more call"}
    counted = frozenset({"rested_s"})
    missing = "no rested call was made"

    def run(self, context: Context) -> None:
        time.sleep(context.asked)
        context.report.append(rested_s=context.measure().e2e_s)


PASS = Rested()
