"""Servers and frameworks from PyPI."""

from typing import Any

from third_party.servers.model import Server

__all__ = ["SERVERS"]


def _program(name: str, text: str, *requirements: str, ranges: bool = True, **more: Any) -> Server:
    """A server started by a Python program of a few lines."""
    return Server(name, "@PYTHON@ serve.py", pypi=requirements, files={"serve.py": text}, ranges=ranges, **more)


def _application(name: str, command: str, text: str, *requirements: str, **more: Any) -> Server:
    """A server that imports an application: ``app`` from the module ``application``."""
    return Server(name, command, pypi=requirements, files={"application.py": text}, **more)


_STARLETTE = """
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
app = Starlette(routes=[Mount("/", StaticFiles(directory="@ROOT@"))])
"""
_FLASK = """
from flask import Flask, send_from_directory
app = Flask(__name__)
@app.get("/<path:name>")
def send(name):
    return send_from_directory("@ROOT@", name)
"""
_DJANGO = """
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.urls import re_path
from django.views.static import serve
settings.configure(DEBUG=True, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
urlpatterns = [re_path("^(?P<path>.+)$", serve, {"document_root": "@ROOT@"})]
app = get_wsgi_application()
if __name__ == "__main__":
    execute_from_command_line(["", "runserver", "--noreload", "127.0.0.1:@PORT@"])
"""
_FALCON = """
import falcon
app = falcon.App()
app.add_static_route("/", "@ROOT@")
"""
_BOTTLE = """
from bottle import Bottle, static_file
app = Bottle()
@app.get("/<name>")
def send(name):
    return static_file(name, root="@ROOT@", mimetype="application/octet-stream")
"""
_PYRAMID = """
from pyramid.config import Configurator
config = Configurator()
config.add_static_view("/", "@ROOT@")
app = config.make_wsgi_app()
"""
_HTTP2 = {"scheme": "https", "options": {"http_version": "2"}}

SERVERS = [
    _program("flask", _FLASK + "app.run('127.0.0.1', @PORT@)\n", "flask"),
    _application(
        "gunicorn", "@PYTHON@ -m gunicorn -b 127.0.0.1:@PORT@ --threads 8 application:app", _FLASK, "gunicorn", "flask"
    ),
    _application(
        "gunicorn, whitenoise",
        "@PYTHON@ -m gunicorn -b 127.0.0.1:@PORT@ -w 2 application:app",
        "from whitenoise import WhiteNoise\napp = WhiteNoise(lambda *_: [], root='@ROOT@')\n",
        "gunicorn",
        "whitenoise",
    ),
    _program("django", _DJANGO, "django", ranges=False),
    _application(
        "waitress", "@PYTHON@ -m waitress --listen=127.0.0.1:@PORT@ application:app", _FLASK, "waitress", "flask"
    ),
    _application(
        "waitress, pyramid",
        "@PYTHON@ -m waitress --listen=127.0.0.1:@PORT@ application:app",
        _PYRAMID,
        "pyramid",
        "waitress",
        "setuptools<81",
        ranges=False,
    ),
    _application("uvicorn", "@PYTHON@ -m uvicorn --port @PORT@ application:app", _STARLETTE, "uvicorn", "starlette"),
    _application(
        "uvicorn, fastapi",
        "@PYTHON@ -m uvicorn --port @PORT@ --http httptools application:app",
        """
from fastapi import FastAPI
from fastapi.responses import FileResponse
app = FastAPI()
@app.get("/{name}")
def send(name: str):
    return FileResponse("@ROOT@/" + name)
""",
        "uvicorn",
        "fastapi",
        "httptools",
    ),
    _application(
        "hypercorn", "@PYTHON@ -m hypercorn -b 127.0.0.1:@PORT@ application:app", _STARLETTE, "hypercorn", "starlette"
    ),
    _application(
        "hypercorn, HTTP/2",
        "@PYTHON@ -m hypercorn -b 127.0.0.1:@PORT@ --certfile @CERTIFICATE@ --keyfile @KEY@ application:app",
        _STARLETTE,
        "hypercorn",
        "starlette",
        **_HTTP2,
    ),
    _application(
        "daphne", "@PYTHON@ -m daphne -b 127.0.0.1 -p @PORT@ application:app", _STARLETTE, "daphne", "starlette"
    ),
    _application(
        "granian",
        "@PYTHON@ -m granian --interface asgi --host 127.0.0.1 --port @PORT@ application:app",
        _STARLETTE,
        "granian",
        "starlette",
    ),
    _application(
        "granian, HTTP/2",
        "@PYTHON@ -m granian --interface asgi --host 127.0.0.1 --port @PORT@ --http 2"
        " --ssl-certificate @CERTIFICATE@ --ssl-keyfile @KEY@ application:app",
        _STARLETTE,
        "granian",
        "starlette",
        **_HTTP2,
    ),
    _application(
        "granian, litestar",
        "@PYTHON@ -m granian --interface asgi --host 127.0.0.1 --port @PORT@ application:app",
        """
from litestar import Litestar
from litestar.static_files import create_static_files_router
app = Litestar(route_handlers=[create_static_files_router(path="/", directories=["@ROOT@"])])
""",
        "granian",
        "litestar",
        ranges=False,
    ),
    _application(
        "hypercorn, quart",
        "@PYTHON@ -m hypercorn -b 127.0.0.1:@PORT@ application:app",
        """
from quart import Quart, send_from_directory
app = Quart(__name__)
@app.get("/<path:name>")
async def send(name):
    return await send_from_directory("@ROOT@", name, conditional=True)
""",
        "hypercorn",
        "quart",
    ),
    _program(
        "cheroot, falcon",
        _FALCON + "from cheroot.wsgi import Server\nServer(('127.0.0.1', @PORT@), app).start()\n",
        "cheroot",
        "falcon",
    ),
    _program(
        "cherrypy",
        """
import cherrypy
cherrypy.config.update({"server.socket_host": "127.0.0.1", "server.socket_port": @PORT@, "engine.autoreload.on": False})
cherrypy.quickstart(None, "/", {"/": {"tools.staticdir.on": True, "tools.staticdir.dir": "@ROOT@"}})
""",
        "cherrypy",
    ),
    _program(
        "tornado",
        """
import asyncio
from tornado.web import Application, StaticFileHandler
async def main():
    Application([("/(.*)", StaticFileHandler, {"path": "@ROOT@"})]).listen(@PORT@, "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(main())
""",
        "tornado",
    ),
    _program(
        "aiohttp",
        """
from aiohttp import web
app = web.Application()
app.router.add_static("/", "@ROOT@")
web.run_app(app, host="127.0.0.1", port=@PORT@)
""",
        "aiohttp",
    ),
    _program("bottle", _BOTTLE + "app.run(host='127.0.0.1', port=@PORT@)\n", "bottle"),
    _program(
        "sanic",
        """
from sanic import Sanic
app = Sanic("files")
app.static("/", "@ROOT@", use_content_range=True, use_modified_since=True)
if __name__ == "__main__":
    app.run("127.0.0.1", @PORT@, single_process=True)
""",
        "sanic",
    ),
    Server(
        "wsgidav",
        "@PYTHON@ -m wsgidav.server.server_cli --host 127.0.0.1 --port @PORT@ --root @ROOT@ --auth anonymous",
        pypi=("wsgidav", "cheroot"),
    ),
    Server(
        "twisted", "@PYTHON@ -m twisted web --listen tcp:@PORT@:interface=127.0.0.1 --path @ROOT@", pypi=("twisted",)
    ),
    _program(
        "klein",
        """
from klein import Klein
from twisted.web.static import File
app = Klein()
@app.route("/", branch=True)
def send(request):
    return File("@ROOT@")
app.run("127.0.0.1", @PORT@)
""",
        "klein",
        "setuptools<81",
    ),
    _program(
        "rangehttpserver",
        """
import functools
from http.server import ThreadingHTTPServer
from RangeHTTPServer import RangeRequestHandler
ThreadingHTTPServer(("127.0.0.1", @PORT@), functools.partial(RangeRequestHandler, directory="@ROOT@")).serve_forever()
""",
        "rangehttpserver",
    ),
    Server(
        "uploadserver", "@PYTHON@ -m uploadserver -b 127.0.0.1 -d @ROOT@ @PORT@", pypi=("uploadserver",), ranges=False
    ),
    _program(
        "gevent",
        _BOTTLE + "from gevent.pywsgi import WSGIServer\nWSGIServer(('127.0.0.1', @PORT@), app).serve_forever()\n",
        "gevent",
        "bottle",
    ),
    _program(
        "eventlet",
        _BOTTLE + "import eventlet, eventlet.wsgi\neventlet.wsgi.server(eventlet.listen(('127.0.0.1', @PORT@)), app)\n",
        "eventlet",
        "bottle",
    ),
    _program(
        "robyn",
        """
from robyn import Robyn
app = Robyn(__file__)
app.serve_directory(route="/", directory_path="@ROOT@")
if __name__ == "__main__":
    app.start(host="127.0.0.1", port=@PORT@)
""",
        "robyn",
    ),
    _application(
        "uvicorn, blacksheep",
        "@PYTHON@ -m uvicorn --port @PORT@ application:app",
        "from blacksheep import Application\napp = Application()\n"
        "app.serve_files('@ROOT@', extensions={'.bin', '.txt'})\n",
        "uvicorn",
        "blacksheep",
    ),
    _program(
        "socketify",
        """
import os
from socketify import App, sendfile
app = App()
async def send(response, request):
    await sendfile(response, request, "@ROOT@" + request.get_url())
app.get("/*", send)
app.listen({"port": @PORT@, "host": "127.0.0.1"}, lambda config: None)
app.run()
""",
        "socketify",
    ),
    _program(
        "microdot",
        """
from microdot import Microdot, send_file
app = Microdot()
@app.get("/<name>")
async def send(request, name):
    return send_file("@ROOT@/" + name)
app.run(host="127.0.0.1", port=@PORT@)
""",
        "microdot",
        ranges=False,
    ),
    _program(
        "tremolo",
        """
from tremolo import Application
app = Application()
@app.route("/")
@app.route("^/(?P<name>.+)$")
async def send(request, response, **_):
    await response.sendfile("@ROOT@" + request.path.decode(), content_type=b"application/octet-stream")
if __name__ == "__main__":
    app.run("127.0.0.1", @PORT@, worker_num=1)
""",
        "tremolo",
    ),
    _program(
        "web.py",
        """
import os, web
os.chdir("@ROOT@")
from cheroot.wsgi import Server
app = web.httpserver.StaticMiddleware(web.application((), {}).wsgifunc(), prefix="/")
Server(("127.0.0.1", @PORT@), app).start()
""",
        "web-py",
        "cheroot",
        ranges=False,
    ),
    _program(
        "pyftpdlib",
        """
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_anonymous("@ROOT@")
FTPServer(("127.0.0.1", @PORT@), FTPHandler).serve_forever()
""",
        "pyftpdlib",
        scheme="ftp",
        checks=("fetch", "resume"),
    ),
]
