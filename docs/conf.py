"""The site: pages of docs/, the notebooks with their outputs, and the reference, made by `make docs`.

The root of the repository is the source folder, so that a link reads the same on the site and in the files.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"

project, author, copyright = "probes", "the authors of probes", "the authors of probes"
html_title, language = "probes", "en"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_line",
    "public_names",
    "local_links",
]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/*/*.md", "notebooks/*.ipynb", "CHANGELOG.md"]
exclude_patterns = ["docs/_*", ".*", "build", "checkpoints", "figures", "runs", "src", "tests"]

nb_execution_mode = "off"
nb_render_image_options = {"width": "100%"}
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = [
    "mystnb.unknown_mime_type"
]  # tables and figures have a second form that is shown

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True

html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
templates_path: list[str] = []
