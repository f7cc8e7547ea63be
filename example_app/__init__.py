"""An audio library: upload a recording, hear it, read it, find it again.

It is an ordinary Flask app with a factory, Flask-SQLAlchemy and a blueprint. Its
transcriptions survive crashes by the code of :mod:`example_app.functions`, and by one
line below.
"""

from __future__ import annotations

import typing as t

from flask import Flask

from .demo import demo
from .functions import durable
from .models import create_tables
from .models import db
from .views import library


def create_app(
    config: t.Mapping[str, t.Any] | None = None, instance_path: str | None = None
) -> Flask:
    """Make the app.

    ``MEDIA_FOLDER`` is the folder of all files (default: ``media`` in the instance
    folder). ``TENANT`` is the one who looks: the owner of what is uploaded here.
    ``REHEARSALS`` lets an upload ask for a step to fail or for the worker to be killed.

    :param config: Values that take the place of those in the environment (``FLASK_…``).
    :param instance_path: The folder of the database and the files.
    """
    app = Flask(__name__, instance_path=instance_path)
    app.config.from_mapping(
        # Signs the links in mails. Set FLASK_SECRET_KEY where others reach this app.
        SECRET_KEY="dev",
        SQLALCHEMY_DATABASE_URI="sqlite:///recordings.db",
        # Several processes write: they wait for each other, at most 15 seconds.
        SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"timeout": 15}},
        MAX_CONTENT_LENGTH=200 * 1024 * 1024,
        MEDIA_FOLDER=None,
        TENANT="home",
        REHEARSALS=True,
    )
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    db.init_app(app)
    durable.init_app(app)
    app.register_blueprint(library)
    app.cli.add_command(demo)
    with app.app_context():
        create_tables()
    return app
