"""Settings of Sphinx for `make docs`. The build needs no network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
os.environ["PYTHONPATH"] = str(HERE.parent / "src")  # for the kernel of the tutorial
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tombola  # noqa: E402

project = "tombola"
author = "the tombola authors"
copyright = "2026, the tombola authors"
version = release = tombola.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["results/*.py", "package.md", "**/.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"tombola {release}"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_show_sphinx = False

myst_heading_anchors = 4  # links such as studies.md#connectivity, as on GitHub
suppress_warnings = ["myst.xref_ambiguous"]

nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True  # results of the tutorial stay out of docs/

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
highlight_language = "none"
smartquotes = False
python_use_unqualified_type_names = True
