"""Servers and frameworks from npm, and the runtimes they run on."""

from typing import Any

from third_party.servers.model import Server

__all__ = ["SERVERS"]

_NODE = ("nodejs", "npm")


def _program(name: str, text: str, *packages: str, ranges: bool = True, **more: Any) -> Server:
    """A server started by a JavaScript program of a few lines."""
    return Server(name, "node serve.js", npm=packages, files={"serve.js": text}, ranges=ranges, **more)


def _middleware(name: str, expression: str, *packages: str, ranges: bool = True) -> Server:
    """A request handler for node's own http module."""
    return _program(
        name, f'require("http").createServer({expression}).listen(@PORT@, "127.0.0.1")\n', *packages, ranges=ranges
    )


def _command(name: str, path: str, arguments: str, *packages: str, ranges: bool = True) -> Server:
    """A server that is a program in an npm package."""
    return Server(name, f"node @PACKAGES@/node_modules/{path} {arguments}", npm=packages, ranges=ranges)


SERVERS = [
    Server(
        "node http",
        "node serve.js",
        files={
            "serve.js": """
const fs = require("fs"), http = require("http")
http.createServer((request, response) => fs.createReadStream("@ROOT@" + request.url).pipe(response))
  .listen(@PORT@, "127.0.0.1")
"""
        },
        ranges=False,
    ),
    Server(
        "node http2",
        "node serve.js",
        files={
            "serve.js": """
const fs = require("fs"), http2 = require("http2")
http2.createSecureServer({cert: fs.readFileSync("@CERTIFICATE@"), key: fs.readFileSync("@KEY@")})
  .on("stream", (stream, headers) => stream.on("error", () => {}).respondWithFile("@ROOT@" + headers[":path"]))
  .listen(@PORT@, "127.0.0.1")
"""
        },
        scheme="https",
        options={"http_version": "2"},
        ranges=False,
    ),
    _command("serve", "serve/build/main.js", "-n -L -l tcp://127.0.0.1:@PORT@ @ROOT@", "serve"),
    _middleware(
        "serve-handler",
        '(request, response) => require("serve-handler")(request, response, {public: "@ROOT@", etag: true})',
        "serve-handler",
    ),
    _command("http-server", "http-server/bin/http-server", "@ROOT@ -a 127.0.0.1 -p @PORT@ -s", "http-server"),
    _program(
        "express",
        'const e = require("express")\ne().use(e.static("@ROOT@")).listen(@PORT@, "127.0.0.1")\n',
        "express",
    ),
    _program(
        "express, compressing",
        'const e = require("express")\ne().use(require("compression")({filter: () => true, threshold: 0}))'
        '.use(e.static("@ROOT@")).listen(@PORT@, "127.0.0.1")\n',
        "compression",
        "express",
    ),
    _program(
        "fastify",
        'const f = require("fastify")()\nf.register(require("@fastify/static"), {root: "@ROOT@"})\n'
        'f.listen({port: @PORT@, host: "127.0.0.1"})\n',
        "@fastify/static",
        "fastify",
    ),
    _program(
        "koa-send",
        'const K = require("koa"), send = require("koa-send"), app = new K()\n'
        'app.use(c => send(c, c.path, {root: "@ROOT@"}))\napp.listen(@PORT@, "127.0.0.1")\n',
        "koa-send",
        "koa",
        ranges=False,
    ),
    _program(
        "koa-range",
        'const K = require("koa"), app = new K()\napp.use(require("koa-range")).use(require("koa-static")("@ROOT@"))\n'
        'app.listen(@PORT@, "127.0.0.1")\n',
        "koa-range",
        "koa-static",
        "koa",
    ),
    _program(
        "hapi",
        """
const server = require("@hapi/hapi").server({port: @PORT@, host: "127.0.0.1"})
server.register(require("@hapi/inert")).then(() => {
  server.route({method: "GET", path: "/{file*}", handler: {directory: {path: "@ROOT@"}}})
  server.start()
})
""",
        "@hapi/inert",
        "@hapi/hapi",
    ),
    _command(
        "live-server",
        "live-server/live-server.js",
        "@ROOT@ --host=127.0.0.1 --port=@PORT@ --no-browser -q",
        "live-server",
    ),
    _program(
        "restify",
        'const r = require("restify"), s = r.createServer()\n'
        's.get("/*", r.plugins.serveStaticFiles("@ROOT@"))\ns.listen(@PORT@, "127.0.0.1")\n',
        "restify",
    ),
    _command("sirv", "sirv-cli/bin.js", "@ROOT@ --host 127.0.0.1 --port @PORT@ --quiet", "sirv-cli"),
    _middleware("sirv, polka", 'require("polka")().use(require("sirv")("@ROOT@")).handler', "sirv", "polka"),
    _middleware("ecstatic", 'require("ecstatic")({root: "@ROOT@"})', "ecstatic"),
    _middleware(
        "send", '(request, response) => require("send")(request, request.url, {root: "@ROOT@"}).pipe(response)', "send"
    ),
    _middleware("connect", 'require("connect")().use(require("serve-static")("@ROOT@"))', "serve-static", "connect"),
    _program(
        "st",
        'import("@PACKAGES@/node_modules/st/st.js").then(({default: st}) =>\n'
        '  require("http").createServer(st({path: "@ROOT@", cache: false})).listen(@PORT@, "127.0.0.1"))\n',
        "st",
        ranges=False,
    ),
    Server(
        "hono",
        "node serve.mjs",
        npm=("@hono/node-server", "hono"),
        files={
            "serve.mjs": """
import { createRequire } from "module"
const require = createRequire("@PACKAGES@/")
const { serve } = require("@hono/node-server"), { serveStatic } = require("@hono/node-server/serve-static")
const { Hono } = require("hono"), app = new Hono()
app.use("/*", serveStatic({root: "@ROOT@"}))
serve({fetch: app.fetch, port: @PORT@, hostname: "127.0.0.1"})
"""
        },
    ),
    _command(
        "local-web-server",
        "local-web-server/bin/cli.js",
        "--hostname 127.0.0.1 -p @PORT@ -d @ROOT@",
        "local-web-server",
    ),
    _program(
        "browser-sync",
        'require("browser-sync").create().init({server: "@ROOT@", port: @PORT@, listen: "127.0.0.1", open: false,'
        ' ui: false, snippet: false, logLevel: "silent", online: false})\n',
        "browser-sync",
    ),
    _program(
        "restana",
        'require("restana")().use(require("serve-static")("@ROOT@")).start(@PORT@, "127.0.0.1")\n',
        "restana",
        "serve-static",
    ),
    Server(
        "bun",
        "@PACKAGES@/node_modules/@oven/bun-linux-x64/bin/bun serve.js",
        npm=("@oven/bun-linux-x64",),
        files={
            "serve.js": 'Bun.serve({port: @PORT@, hostname: "127.0.0.1",\n'
            '  fetch: request => new Response(Bun.file("@ROOT@" + new URL(request.url).pathname))})\n'
        },
    ),
    Server(
        "deno",
        "@PACKAGES@/node_modules/@deno/linux-x64-glibc/deno run -A --no-remote serve.js",
        npm=("@deno/linux-x64-glibc",),
        files={
            "serve.js": """
Deno.serve({port: @PORT@, hostname: "127.0.0.1"}, async request => {
  const file = await Deno.open("@ROOT@" + new URL(request.url).pathname)
  return new Response(file.readable)
})
"""
        },
        ranges=False,
    ),
]
