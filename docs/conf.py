"""How Sphinx makes the documentation."""

from pallets_sphinx_themes import get_version
from pallets_sphinx_themes import ProjectLink

project = "Flask-Durable"
copyright = "the Flask-Durable contributors"
release, version = get_version("flask-durable")

extensions = ["sphinx.ext.autodoc", "pallets_sphinx_themes"]
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
default_role = "code"

_SOURCE = "https://github.com/flask-durable/flask-durable"

html_theme = "flask"
html_title = f"Flask-Durable {version}"
html_show_sourcelink = False
html_context = {
    "project_links": [
        ProjectLink("Source", _SOURCE),
        ProjectLink("Changes", f"{_SOURCE}/blob/main/CHANGES.md"),
        ProjectLink("Issues", f"{_SOURCE}/issues"),
        ProjectLink("Flask", "https://flask.palletsprojects.com/"),
        ProjectLink("Dramatiq", "https://dramatiq.io/"),
    ]
}
html_sidebars = {
    "index": ["project.html", "localtoc.html", "searchbox.html"],
    "**": ["localtoc.html", "relations.html", "searchbox.html"],
}
