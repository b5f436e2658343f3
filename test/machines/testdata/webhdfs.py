# What a program does with files through fsspec's WebHDFS: HOST PORT IDENTITY, a file, or
# HOST PORT PASSWORD for a port without TLS.
import os
import sys
import warnings

for name in "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE":
    os.environ.pop(name, None)  # they would be asked for, whatever verify says
warnings.simplefilter("ignore")
from fsspec.implementations.webhdfs import WebHDFS

host, port, secret = sys.argv[1:]
identity = secret.startswith("/")
fs = WebHDFS(host, port=int(port), user="root", use_https=identity, skip_instance_cache=True)
fs._connect()
if identity:
    fs.session.cert, fs.session.verify = secret, False  # it knows machines by address
else:
    fs.session.auth = ("somebody", secret)

data = os.urandom(5_000_000)
fs.mkdir("/py/a")
with fs.open("/py/a/f", "wb") as f:
    f.write(data)
assert fs.info("/py/a/f")["size"] == len(data), fs.info("/py/a/f")
with fs.open("/py/a/f", "rb") as f:
    assert f.read() == data
    f.seek(1000)
    assert f.read(10) == data[1000:1010]
with fs.open("/py/a/f", "ab") as f:
    f.write(b"tail")
assert fs.cat("/py/a/f") == data + b"tail"
fs.chmod("/py/a/f", "640")
fs.chown("/py/a/f", owner="4242", group="4242")
info = fs.info("/py/a/f")
assert (info["permission"], info["owner"], info["group"]) == ("640", "4242", "4242"), info
summary = fs.content_summary("/py")
assert (summary["directoryCount"], summary["fileCount"], summary["length"]) == (2, 1, len(data) + 4), summary
assert fs.home_directory() == "/user/root", fs.home_directory()
assert fs.ls("/py/a", detail=False) == ["/py/a/f"], fs.ls("/py/a")
fs.mv("/py/a/f", "/py/g")
assert fs.exists("/py/g") and not fs.exists("/py/a/f")
assert fs.find("/py") == ["/py/g"], fs.find("/py")
try:
    fs.info("/py/none")
    raise SystemExit("there is what was not made")
except FileNotFoundError:
    pass
try:
    fs.rm("/py")
    raise SystemExit("a directory was removed that is not empty")
except RuntimeError:
    pass
fs.rm("/py", recursive=True)
assert not fs.exists("/py")
print("ok")
