"""One legend for several panels."""

from typing import Any

from probes.plotting.style import PaperFigure


def one_legend(axes: Any) -> None:
    """One legend below the figure with every entry of these axes' legends, which go."""
    handles: dict[str, Any] = {}
    for ax in axes:
        legend = ax.get_legend()
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            handles.setdefault(text.get_text(), handle)
        legend.remove()
    drawing: PaperFigure = axes[0].figure
    drawing.legend(
        handles=list(handles.values()), labels=list(handles), loc="outside lower center",
        ncols=len(handles) if len(handles) < 6 else 3, handlelength=1.8,
    )  # fmt: skip
