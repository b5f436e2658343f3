# Calls of a service that makes capitals, by gRPC as any program makes them:
# HOST:PORT NAME IDENTITY, and IDENTITY of who may only read.
import sys
import grpc

addr, name, identity, reader = sys.argv[1:]


def channel(path):
    pem = open(path, "rb").read()
    return grpc.secure_channel(addr, grpc.ssl_channel_credentials(pem, pem, pem), (("grpc.ssl_target_name_override", name),))


def fails(call, code, *args, **more):
    try:
        got = call(*args, timeout=60, **more)
    except grpc.RpcError as e:
        assert e.code() == code, e
        return
    raise AssertionError(f"{got[:80]}, want {code}")


with channel(identity) as ch:
    upper = ch.unary_unary("/dos.rpc/upper")
    assert upper(b"hello\n", timeout=60) == b"HELLO\n"
    fails(upper, grpc.StatusCode.ABORTED, b"")  # a shell that writes nothing has not replied
    large = b"large\n" * 500_000
    assert upper(large, timeout=60) == large.upper()
    fails(upper, grpc.StatusCode.RESOURCE_EXHAUSTED, large * 2)
    stream = ch.stream_stream("/dos.rpc.stream/upper")
    assert b"".join(stream(iter([large] * 5), timeout=60)) == large.upper() * 5
    fails(ch.stream_unary("/dos.rpc/upper"), grpc.StatusCode.INVALID_ARGUMENT, iter([b"two", b"messages"]))
    fails(ch.unary_unary("/dos.rpc/none"), grpc.StatusCode.NOT_FOUND, b"hello")
    fails(ch.unary_unary("/dos.rpc/idle"), grpc.StatusCode.UNAVAILABLE, b"hello")
    fails(ch.unary_unary("/dos.other/upper"), grpc.StatusCode.UNIMPLEMENTED, b"hello")
    fails(upper, grpc.StatusCode.PERMISSION_DENIED, b"hello", metadata=(("dos-user", "4242"),))
    fails(upper, grpc.StatusCode.INVALID_ARGUMENT, b"hello", metadata=(("dos-timeout", "soon"),))
with channel(reader) as ch:
    fails(ch.unary_unary("/dos.rpc/upper"), grpc.StatusCode.PERMISSION_DENIED, b"hello")
print("ok")
