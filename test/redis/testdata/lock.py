# What people write with redis-py: locks that are taken, extended and given back by
# several threads, a queue with workers, and a channel. Takes the port; prints ok.
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

s = r.pubsub()
s.subscribe("news")
assert s.get_message(timeout=10)["type"] == "subscribe"
assert r.publish("news", "hello") == 1
assert s.get_message(timeout=10)["data"] == b"hello"
print("ok")
