"""Servers packaged by Debian, and some that come with a programming language."""

from third_party.servers.model import Server

__all__ = ["SERVERS"]

_FTP = ("fetch", "resume")
"""The checks for FTP, which the aria2 backend fetches; streams and batches are the native engine's."""

_APACHE = """
ServerRoot /usr/lib/apache2
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule ssl_module modules/mod_ssl.so
LoadModule http2_module modules/mod_http2.so
LoadModule mime_module modules/mod_mime.so
LoadModule deflate_module modules/mod_deflate.so
LoadModule filter_module modules/mod_filter.so
User www-data
Group www-data
ServerName localhost
Listen 127.0.0.1:@PORT@
PidFile @WORK@/pid
ErrorLog @WORK@/errors
DefaultRuntimeDir @WORK@
Mutex file:@WORK@
DocumentRoot @ROOT@
TypesConfig /dev/null
<Directory @ROOT@>
    Require all granted
</Directory>
"""

_NGINX = """
daemon off;
user root root;
pid @WORK@/pid;
error_log @WORK@/errors;
events { }
http {
    access_log off;
    client_body_temp_path @WORK@/body;
    proxy_temp_path @WORK@/proxy;
    fastcgi_temp_path @WORK@/fastcgi;
    uwsgi_temp_path @WORK@/uwsgi;
    scgi_temp_path @WORK@/scgi;
    server {
        listen 127.0.0.1:@PORT@ LISTEN;
        SETTINGS
    }
}
"""

_LIGHTTPD = """
server.port = @PORT@
server.bind = "127.0.0.1"
server.document-root = "@ROOT@"
mimetype.assign = ("" => "application/octet-stream")
"""

_HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:@PORT@ OPTIONS
    default_backend origin
backend origin
    server origin 127.0.0.1:@ORIGIN@
"""

_SQUID = """
http_port 127.0.0.1:@PORT@ OPTIONS
http_access allow all
visible_hostname localhost
pid_filename @WORK@/pid
cache_log @WORK@/log
access_log none
coredump_dir @WORK@
pinger_enable off
cache_mem 64 MB
maximum_object_size 100 MB
maximum_object_size_in_memory 32 MB
shutdown_lifetime 0 seconds
"""

_RACK = {"config.ru": 'require "rack"\nrun Rack::Files.new("@ROOT@")\n'}
_PLACK = {"app.psgi": 'use Plack::App::File; Plack::App::File->new(root => "@ROOT@")->to_app;\n'}

SERVERS = [
    # ---- File servers ------------------------------------------------------------------------------------------------
    Server(
        "apache",
        "apache2 -DFOREGROUND -f @WORK@/apache.conf",
        debian=("apache2",),
        files={"apache.conf": _APACHE},
    ),
    Server(
        "apache, HTTP/2",
        "apache2 -DFOREGROUND -f @WORK@/apache.conf",
        debian=("apache2",),
        files={
            "apache.conf": _APACHE
            + "Protocols h2 http/1.1\nSSLEngine on\nSSLCertificateFile @CERTIFICATE@\nSSLCertificateKeyFile @KEY@\n"
        },
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "apache, compressing",
        "apache2 -DFOREGROUND -f @WORK@/apache.conf",
        debian=("apache2",),
        files={"apache.conf": _APACHE + "ForceType text/plain\nSetOutputFilter DEFLATE\n"},
    ),
    Server(
        "nginx",
        "nginx -p @WORK@ -c @WORK@/nginx.conf -e @WORK@/errors",
        debian=("nginx",),
        files={"nginx.conf": _NGINX.replace("LISTEN", "").replace("SETTINGS", "root @ROOT@;")},
    ),
    Server(
        "nginx, HTTP/2",
        "nginx -p @WORK@ -c @WORK@/nginx.conf -e @WORK@/errors",
        debian=("nginx",),
        files={
            "nginx.conf": _NGINX.replace("LISTEN", "ssl http2").replace(
                "SETTINGS", "root @ROOT@; ssl_certificate @CERTIFICATE@; ssl_certificate_key @KEY@;"
            )
        },
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "nginx, proxying with slices",
        "nginx -p @WORK@ -c @WORK@/nginx.conf -e @WORK@/errors",
        debian=("nginx",),
        files={
            "nginx.conf": _NGINX.replace("LISTEN", "").replace(
                "SETTINGS",
                "location / { slice 1m; proxy_pass http://127.0.0.1:@ORIGIN@; proxy_http_version 1.1;"
                " proxy_set_header Range $slice_range; }",
            )
        },
    ),
    Server(
        "caddy",
        "caddy run --adapter caddyfile --config Caddyfile",
        debian=("caddy",),
        files={"Caddyfile": "{\nadmin off\n}\nhttp://127.0.0.1:@PORT@ {\nroot * @ROOT@\nfile_server\n}\n"},
    ),
    Server(
        "caddy, HTTP/2",
        "caddy run --adapter caddyfile --config Caddyfile",
        debian=("caddy",),
        files={
            "Caddyfile": "{\nadmin off\nauto_https disable_redirects\n}\nhttps://127.0.0.1:@PORT@ {\n"
            "tls @CERTIFICATE@ @KEY@\nroot * @ROOT@\nfile_server\n}\n"
        },
        scheme="https",
        options={"http_version": "2"},
    ),
    Server("lighttpd", "lighttpd -D -f lighttpd.conf", debian=("lighttpd",), files={"lighttpd.conf": _LIGHTTPD}),
    Server(
        "lighttpd, HTTP/2",
        "lighttpd -D -f lighttpd.conf",
        debian=("lighttpd", "lighttpd-mod-openssl"),
        files={
            "lighttpd.conf": _LIGHTTPD
            + 'server.modules = ("mod_openssl")\nssl.engine = "enable"\n'
            + 'ssl.pemfile = "@CERTIFICATE@"\nssl.privkey = "@KEY@"\n'
        },
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "h2o",
        "h2o -c h2o.conf",
        debian=("h2o",),
        files={
            "h2o.conf": "user: root\nlisten: {host: 127.0.0.1, port: @PORT@}\nhosts:\n"
            '  default:\n    paths:\n      "/":\n        file.dir: @ROOT@\n'
        },
    ),
    Server(
        "h2o, HTTP/2",
        "h2o -c h2o.conf",
        debian=("h2o",),
        files={
            "h2o.conf": "user: root\nlisten: {host: 127.0.0.1, port: @PORT@, "
            "ssl: {certificate-file: @CERTIFICATE@, key-file: @KEY@}}\nhosts:\n"
            '  default:\n    paths:\n      "/":\n        file.dir: @ROOT@\n'
        },
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "nghttpd, HTTP/2",
        "nghttpd -a 127.0.0.1 -d @ROOT@ @PORT@ @KEY@ @CERTIFICATE@",
        debian=("nghttp2-server",),
        scheme="https",
        options={"http_version": "2"},
        ranges=False,
    ),
    Server("webfs", "webfsd -F -i 127.0.0.1 -p @PORT@ -r @ROOT@", debian=("webfs",)),
    Server(
        "mini_httpd", "mini_httpd -D -h 127.0.0.1 -p @PORT@ -d @ROOT@ -u root", debian=("mini-httpd",), ranges=False
    ),
    Server(
        "micro-httpd",
        "socat TCP-LISTEN:@PORT@,bind=127.0.0.1,reuseaddr,fork 'EXEC:/usr/sbin/micro-httpd @ROOT@'",
        debian=("micro-httpd", "socat"),
        ranges=False,
    ),
    Server("busybox httpd", "busybox httpd -f -p 127.0.0.1:@PORT@ -h @ROOT@", debian=("busybox",)),
    Server("weborf", "weborf -i 127.0.0.1 -p @PORT@ -b @ROOT@", debian=("weborf",)),
    Server(
        "civetweb",
        "civetweb -document_root @ROOT@ -listening_ports 127.0.0.1:@PORT@",
        debian=("civetweb",),
    ),
    Server(
        "mighttpd2",
        "mighty mighty.conf mighty.route",
        debian=("mighttpd2",),
        files={
            "mighty.conf": "Port: @PORT@\nHost: 127.0.0.1\nDebug_Mode: Yes\nUser: root\nGroup: root\n"
            "Pid_File: @WORK@/pid\nLogging: No\nStatus_File_Dir: @WORK@\nWorker_Processes: 1\nDaemon: No\n",
            "mighty.route": "[*]\n/ -> @ROOT@/\n",
        },
    ),
    Server(
        "rclone",
        "rclone serve http @ROOT@ --addr 127.0.0.1:@PORT@",
        debian=("rclone",),
    ),
    Server(
        "rclone, WebDAV",
        "rclone serve webdav @ROOT@ --addr 127.0.0.1:@PORT@ --etag-hash MD5",
        debian=("rclone",),
    ),
    # ---- Servers that come with a programming language ---------------------------------------------------------------
    Server(
        "yaws",
        "yaws -i --conf yaws.conf --erlarg -noinput",
        debian=("yaws",),
        files={
            "yaws.conf": "logdir = @WORK@\nebin_dir = @WORK@\nid = rangefetch@PORT@\n"
            "<server localhost>\nport = @PORT@\nlisten = 127.0.0.1\ndocroot = @ROOT@\n</server>\n"
        },
    ),
    Server(
        "erlang httpd",
        "erl -noinput -eval 'inets:start(), {ok, _} = inets:start(httpd, [{port, @PORT@},"
        ' {bind_address, {127, 0, 0, 1}}, {server_name, "localhost"}, {server_root, "@WORK@"},'
        ' {document_root, "@ROOT@"},'
        " {modules, [mod_alias, mod_range, mod_get, mod_head]}]).'",
        debian=("erlang-inets",),
        ranges=False,  # it sends "Content-Range: bytes=0-1/2", which is malformed
    ),
    Server("python http.server", "@PYTHON@ -m http.server --bind 127.0.0.1 -d @ROOT@ @PORT@", ranges=False),
    Server(
        "webrick",
        'ruby -rwebrick -e \'WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: @PORT@,'
        ' DocumentRoot: "@ROOT@", AccessLog: []).start\'',
        debian=("ruby-webrick",),
    ),
    Server("puma", "puma -b tcp://127.0.0.1:@PORT@ config.ru", debian=("puma",), files=_RACK),
    Server("thin", "thin -a 127.0.0.1 -p @PORT@ -R config.ru start", debian=("thin",), files=_RACK),
    Server("unicorn", "unicorn -l 127.0.0.1:@PORT@ config.ru", debian=("unicorn",), files=_RACK),
    Server(
        "php -S",
        "php -S 127.0.0.1:@PORT@ -t @ROOT@",
        debian=("php-cli",),
        ranges=False,
    ),
    Server(
        "php, readfile",
        "php -S 127.0.0.1:@PORT@ send.php",
        debian=("php-cli",),
        files={
            "send.php": '<?php $file = "@ROOT@" . parse_url($_SERVER["REQUEST_URI"], PHP_URL_PATH);\n'
            'header("Content-Type: application/octet-stream");\n'
            'header("Content-Length: " . filesize($file));\nreadfile($file);\n'
        },
        environment={"PHP_CLI_SERVER_WORKERS": "4"},
        ranges=False,
    ),
    Server(
        "HTTP::Server::PSGI",
        "plackup -o 127.0.0.1 -p @PORT@ app.psgi",
        debian=("libplack-perl",),
        files=_PLACK,
        ranges=False,
    ),
    Server("starman", "starman -l 127.0.0.1:@PORT@ app.psgi", debian=("starman",), files=_PLACK, ranges=False),
    Server(
        "twiggy",
        "twiggy -l 127.0.0.1:@PORT@ app.psgi",
        debian=("twiggy",),
        files=_PLACK,
        ranges=False,
        # After a client has disconnected in the middle of a large body, it answers no further requests.
        checks=("fetch", "many", "stream"),
    ),
    Server(
        "uwsgi",
        "uwsgi --plugin python3 --http-socket 127.0.0.1:@PORT@ --check-static @ROOT@ --processes 4"
        " --die-on-term --honour-range",
        debian=("uwsgi-core", "uwsgi-plugin-python3"),
    ),
    # ---- Proxies in front of another server --------------------------------------------------------------------------
    Server(
        "haproxy",
        "haproxy -db -f haproxy.cfg",
        debian=("haproxy",),
        files={"haproxy.cfg": _HAPROXY.replace("OPTIONS", "")},
    ),
    Server(
        "haproxy, HTTP/2",
        "haproxy -db -f haproxy.cfg",
        debian=("haproxy",),
        files={"haproxy.cfg": _HAPROXY.replace("OPTIONS", "ssl crt @PEM@ alpn h2,http/1.1")},
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "nghttpx, HTTP/2",
        "nghttpx --conf=/dev/null -f 127.0.0.1,@PORT@ -b 127.0.0.1,@ORIGIN@ @KEY@ @CERTIFICATE@",
        debian=("nghttp2-proxy",),
        scheme="https",
        options={"http_version": "2"},
    ),
    Server(
        "hitch",
        "hitch -u root -f '[127.0.0.1]:@PORT@' -b '[127.0.0.1]:@ORIGIN@' @PEM@",
        debian=("hitch",),
        scheme="https",
    ),
    Server(
        "stunnel",
        "stunnel4 stunnel.conf",
        debian=("stunnel4",),
        files={
            "stunnel.conf": "foreground = yes\npid =\n[https]\n"
            "accept = 127.0.0.1:@PORT@\nconnect = 127.0.0.1:@ORIGIN@\n"
            "cert = @CERTIFICATE@\nkey = @KEY@\n"
        },
        scheme="https",
    ),
    Server(
        "varnish",
        "varnishd -F -j none -a 127.0.0.1:@PORT@ -b 127.0.0.1:@ORIGIN@ -n @WORK@/varnish -s malloc,64m",
        debian=("varnish", "gcc", "libc6-dev"),
    ),
    Server(
        "traffic server",
        "traffic_server",
        debian=("trafficserver",),
        environment={"TS_RUNROOT": "@WORK@/runroot.yaml"},
        files={
            "runroot.yaml": "prefix: /usr\nexec_prefix: /usr\n"
            "bindir: /usr/bin\nsbindir: /usr/sbin\nsysconfdir: @WORK@\n"
            "datadir: @WORK@\nincludedir: /usr/include\nlibdir: /usr/lib\nlibexecdir: /usr/lib/trafficserver/modules\n"
            "localstatedir: @WORK@\nruntimedir: @WORK@\nlogdir: @WORK@\ncachedir: @WORK@\n",
            "records.config": "CONFIG proxy.config.http.server_ports STRING @PORT@:ip-in=127.0.0.1\n"
            "CONFIG proxy.config.admin.user_id STRING #-1\n",
            "ip_allow.yaml": "ip_allow: [{apply: in, ip_addrs: 127.0.0.1, action: allow, methods: ALL}]\n",
            "remap.config": "map / http://127.0.0.1:@ORIGIN@/\n",
            "storage.config": "@WORK@ 64M\n",
        },
    ),
    Server(
        "squid, in front",
        "squid -N -n squid@PORT@ -f squid.conf",
        debian=("squid",),
        files={
            "squid.conf": _SQUID.replace("OPTIONS", "accel defaultsite=localhost")
            + "cache_peer 127.0.0.1 parent @ORIGIN@ 0 no-query originserver\n"
        },
    ),
    Server(
        "squid, proxy",
        "squid -N -n squid@PORT@ -f squid.conf",
        debian=("squid",),
        files={"squid.conf": _SQUID.replace("OPTIONS", "")},
        proxy=True,
    ),
    Server(
        "tinyproxy",
        "tinyproxy -d -c tinyproxy.conf",
        debian=("tinyproxy",),
        files={"tinyproxy.conf": 'Port @PORT@\nListen 127.0.0.1\nTimeout 60\nMaxClients 100\nLogFile "@WORK@/log"\n'},
        proxy=True,
    ),
    Server(
        "privoxy",
        "privoxy --no-daemon privoxy.conf",
        debian=("privoxy",),
        files={"privoxy.conf": "confdir /etc/privoxy\nlogdir @WORK@\nlisten-address 127.0.0.1:@PORT@\n"},
        proxy=True,
    ),
    # ---- FTP ---------------------------------------------------------------------------------------------------------
    Server(
        "vsftpd",
        "sh -c 'mkdir empty && exec vsftpd vsftpd.conf'",
        debian=("vsftpd",),
        files={
            "vsftpd.conf": "listen=YES\nlisten_ipv6=NO\nlisten_address=127.0.0.1\nlisten_port=@PORT@\nbackground=NO\n"
            "anonymous_enable=YES\nanon_root=@ROOT@\nseccomp_sandbox=NO\nsecure_chroot_dir=@WORK@/empty\n"
        },
        scheme="ftp",
        checks=_FTP,
    ),
]
