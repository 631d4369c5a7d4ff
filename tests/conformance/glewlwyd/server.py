"""Glewlwyd on a fresh SQLite database, set up through its admin API, and a small API in front of its introspection.

  /api/oidc/token   /api/oidc/revoke     tokens of an hour
  /api/short/token  /api/short/revoke    tokens that live as long as clients.json says
On API_PORT: /oidc and /short want a token of that plugin; /_test/issued?client=ID is how many tokens that client was given.
"""

import atexit
import base64
import gzip
import json
import os
import signal
import socketserver
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http import client, cookiejar, server

ROOT, PORT, API_PORT = os.environ["ROOT"], int(os.environ["PORT"]), int(os.environ["API_PORT"])
BASE = f"http://127.0.0.1:{PORT}/api"
with open(os.environ["CLIENTS"]) as file:
    CLIENTS = json.load(file)
SCOPES = ["read", "write"]

folder = tempfile.TemporaryDirectory(prefix="run-", dir=os.path.dirname(ROOT))
DATABASE = folder.name + "/glewlwyd.db"
schema = gzip.open(ROOT + "/usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz", "rt").read()
with sqlite3.connect(DATABASE) as database:
    database.executescript(schema)

MODULES = ROOT + "/usr/lib/glewlwyd"
os.makedirs(MODULES + "/user_middleware", exist_ok=True)
with open(folder.name + "/glewlwyd.conf", "w") as file:
    file.write(f'''
port={PORT}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{PORT}"
login_url="login.html"
api_prefix="api"
static_files_path="{ROOT}/usr/share/glewlwyd/webapp/"
cookie_domain="127.0.0.1"
cookie_secure=0
log_mode="console"
log_level="ERROR"
session_expiration=3600
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{MODULES}/user"
user_middleware_module_path="{MODULES}/user_middleware"
client_module_path="{MODULES}/client"
user_auth_scheme_module_path="{MODULES}/scheme"
plugin_module_path="{MODULES}/plugin"
hash_algorithm="SHA512"
database={{ type="sqlite3"; path="{DATABASE}"; }};
''')
glewlwyd = subprocess.Popen([ROOT + "/usr/bin/glewlwyd", "--config-file", folder.name + "/glewlwyd.conf"], stdout=sys.stderr)


def stop():
    glewlwyd.terminate()
    glewlwyd.wait()
    folder.cleanup()


def leave(*_):
    # Raised where the main thread is, so that a lock it holds there is let go before `stop` asks for it: `poll` below holds the
    # one that `wait` needs.
    sys.exit()


atexit.register(stop)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)

admin = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookiejar.CookieJar()))


def post(path, body):
    request = urllib.request.Request(f"{BASE}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        admin.open(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        sys.exit(f"{path}: {error.code} {error.read()[:500]}")


for _ in range(100):
    try:
        post("auth/", {"username": "admin", "password": "password"})
        break
    except urllib.error.URLError:
        if glewlwyd.poll() is not None:
            sys.exit("glewlwyd ended")
        time.sleep(0.1)
for scope in SCOPES:
    post("scope/", {"name": scope, "display_name": scope, "description": scope, "password_required": False, "scheme": {}})
for one in CLIENTS:
    post("client/", {
        "client_id": one["id"], "name": one["id"], "confidential": True, "enabled": True, "scope": SCOPES,
        "password": one["secret"], "client_secret": one["secret"], "redirect_uri": [],
        "authorization_type": ["client_credentials"], "token_endpoint_auth_method": [one["method"]],
    })
for name, lifetime in ("oidc", 3600), ("short", next(one["lifetime"] for one in CLIENTS if "lifetime" in one)):
    post("mod/plugin/", {"module": "oidc", "name": name, "display_name": name, "enabled": True, "parameters": {
        "iss": f"{BASE}/{name}", "jwt-type": "sha", "jwt-key-size": "256", "key": "a key that signs tokens of a test",
        "access-token-duration": lifetime, "refresh-token-duration": 3600, "code-duration": 600, "refresh-token-rolling": False,
        "allow-non-oidc": True, "subject-type": "public", "auth-type-client-enabled": True, "auth-type-code-enabled": True,
        "auth-type-token-enabled": False, "auth-type-id-token-enabled": True, "auth-type-refresh-enabled": False,
        "auth-type-password-enabled": False, "auth-type-device-enabled": False,
        "introspection-revocation-allowed": True, "introspection-revocation-allow-target-client": True,
    }})


def active(plugin, token):
    # A client may look at its own tokens only. Its id is in the token, which nobody has checked yet at this point.
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    secret = next(one["secret"] for one in CLIENTS if one["id"] == claims["client_id"])
    basic = base64.b64encode(f'{claims["client_id"]}:{secret}'.encode()).decode()
    form = urllib.parse.urlencode({"token": token})
    connection = client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", f"/api/{plugin}/introspect", form, headers)
    answer = json.load(connection.getresponse())
    connection.close()
    return answer["active"]


class Api(server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/_test/issued":
            query = urllib.parse.parse_qs(url.query)["client"]
            with sqlite3.connect(DATABASE) as database:
                (count,) = database.execute("SELECT count(*) FROM gpo_access_token WHERE gpoa_client_id = ?", query).fetchone()
            return self.answer(200, str(count))
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and active(url.path[1:], token):
            return self.answer(200, "hello")
        challenge = 'Bearer realm="conformance", error="invalid_token", error_description="expired, revoked or unknown"'
        return self.answer(401, "", challenge)

    def answer(self, status, body, challenge=None):
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Listener(socketserver.ThreadingMixIn, server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024


api = Listener(("127.0.0.1", API_PORT), Api)
threading.Thread(target=api.serve_forever, daemon=True).start()
version = subprocess.run([ROOT + "/usr/bin/glewlwyd", "--version"], capture_output=True, text=True, check=True).stdout
print("ready", version.strip(), flush=True)
try:
    while glewlwyd.poll() is None:
        time.sleep(0.5)
    print("glewlwyd ended", file=sys.stderr, flush=True)
    status = 1
except SystemExit:
    status = 0
stop()
# Connections that are still open have threads that would be waited for.
os._exit(status)
