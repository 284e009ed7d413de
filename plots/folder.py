"""A folder of images, one after the other: time of each call, failures marked, memory below.

Columns: workload, label, backend, place (of the image in the cell's own order, from 1), e2e_s
(None for an image without a time), rss_bytes (None where the system tells none), outcome, drawn
(one in how many ok images has a mark), total, failed.
"""

from __future__ import annotations

from matplotlib.ticker import MaxNLocator

from plots import style

TITLE = "Folder of images: time and memory along the folder"


@style.figure_of(
    TITLE,
    nothing="No run processed a folder of images (task: folder).",
    notes=(
        "Each mark is the call of one image, in the order of the folder, n = images of the "
        "cell. Line: median of the ok calls. Red crosses: images that failed or gave an "
        "invalid result, at the foot, since they have no time to show. Below: resident memory "
        "of the worker after each image; a line that rises is a leak."
    ),
    height=lambda rows: 4.4 + 0.2 * len(style.labels(rows)),
    ratios=(3.0, 1.4),
)
def figure(panel: style.Panel) -> None:
    """Draw one workload: times above, resident memory below."""
    (upper, lower), rows = panel.stack, panel.rows
    shapes = style.markers(rows["label"])
    for label, one, colour in panel.series():
        first = one.iloc[0]
        good = one[(one["outcome"] == "ok") & one["e2e_s"].notna()]
        size = 4.5 if len(good) <= 100 else 2.2
        text = f"{style.shorten(label, 40)} · n = {first['total']}"
        text += f", {first['failed']} failed" if first["failed"] else ""
        text += f", one of {first['drawn']} drawn" if first["drawn"] > 1 else ""
        style.dot(
            upper, good["place"], good["e2e_s"], shapes[label], colour, size,
            alpha=0.75, label=text,
        )  # fmt: skip
        if len(good):
            upper.axhline(float(good["e2e_s"].median()), color=colour, linewidth=1.2)
        bad = one[one["outcome"] != "ok"]
        if len(bad):  # marks of no image, not clipped, have no end: they leave no room for axes
            style.dot(
                upper, bad["place"], [0.02] * len(bad), "x", style.BAD, 7,
                transform=upper.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
        held = one[one["rss_bytes"].notna()]
        lower.plot(held["place"], held["rss_bytes"] / style.GIB, color=colour, linewidth=1.3)
    times = rows.loc[rows["outcome"] == "ok", "e2e_s"].dropna()
    upper.set_ylim(0, float(times.max()) * 1.15 if len(times) else 1.0)
    most = float(rows["rss_bytes"].max())
    lower.set_ylim(0, most / style.GIB * 1.2 if style.present(most) else 1.0)
    upper.set_ylabel("end-to-end time [s]")
    lower.set_ylabel("memory [GiB]")
    lower.set_xlabel("image, in the order of the folder")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Between the times and the crosses at the foot: calls of one folder are of one order.
    upper.legend(loc="lower left", bbox_to_anchor=(0.0, 0.07))
