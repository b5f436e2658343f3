# What people write with redis-py: locks that are taken, extended and given back by
# several threads, queues with workers, pipelines, a scan and a channel. Takes the port;
# prints ok.
import sys, threading, redis

r = redis.Redis(port=int(sys.argv[1]), socket_timeout=30)
r.delete("count")

def count():
    for _ in range(10):
        with r.lock("turn", timeout=20, blocking_timeout=60, sleep=0.01) as lock:
            n = int(r.get("count") or 0)
            lock.extend(5)
            lock.reacquire()
            r.set("count", n + 1)

def work(done):
    while True:
        _, job = r.brpop("jobs", timeout=30)
        if job == b"stop":
            return
        done.append(job)

threads = [threading.Thread(target=count) for _ in range(4)]
done = []
threads += [threading.Thread(target=work, args=(done,)) for _ in range(3)]
for t in threads:
    t.start()
with r.pipeline(transaction=False) as p:
    for n in range(50):
        p.lpush("jobs", f"job {n}")
    p.execute()
for _ in range(3):
    r.lpush("jobs", "stop")
for t in threads:
    t.join()
assert r.get("count") == b"40", r.get("count")
assert sorted(done) == sorted(f"job {n}".encode() for n in range(50)), done

lock = r.lock("mine", timeout=30)
assert lock.acquire() and not r.lock("mine", timeout=30).acquire(blocking=False)
lock.local.token = b"another"
try:
    lock.release()
    raise SystemExit("a lock of another was given back")
except redis.exceptions.LockError:
    pass

with r.pipeline() as p:  # MULTI, EXEC
    p.watch("mine2")
    p.multi()
    p.set("mine2", 1).incr("mine2")
    assert p.execute() == [True, 2]

with r.pipeline() as p:  # all of it at once
    for n in range(5):
        p.rpush("others", n)
    assert p.execute() == [1, 2, 3, 4, 5]
assert r.lrange("others", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
job = r.blmove("others", "doing", 5, "LEFT", "RIGHT")  # kept until it is done
assert job == b"0" and r.lrem("doing", 1, job) == 1 and r.llen("doing") == 0
taken = []
while item := r.blpop("others", timeout=1):
    taken.append(item[1])
assert taken == [b"1", b"2", b"3", b"4"], taken

cache = redis.Redis(port=int(sys.argv[1]), db=1, socket_timeout=30)
with cache.pipeline() as p:  # a limit of visits
    p.incr("visits").expire("visits", 60)
    assert p.execute() == [1, True]
with r.pipeline() as p:
    for n in range(150):
        p.set(f"scan:{n}", n)
    p.execute()
assert {k for k in r.scan_iter("scan:*", count=20)} == {f"scan:{n}".encode() for n in range(150)}

s = r.pubsub()
s.subscribe("news")
assert s.get_message(timeout=10)["type"] == "subscribe"
assert r.publish("news", "hello") == 1
assert s.get_message(timeout=10)["data"] == b"hello"
print("ok")
