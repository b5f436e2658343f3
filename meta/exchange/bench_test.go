package exchange

import (
	"context"
	"io"
	"testing"
	"time"

	"dos/internal/rpc"
	"dos/internal/rpc/rpctest"
)

// BenchmarkCall is a call of 100 bytes through an exchange, two connections, beside one
// of plain gRPC, of one caller and of 16.
func BenchmarkCall(b *testing.B) {
	x := new(Exchange)
	plain := rpc.Service{Name: "plain", Calls: map[string]func(context.Context, *rpc.Frame) (*rpc.Frame, error){
		"Echo": func(_ context.Context, req *rpc.Frame) (*rpc.Frame, error) {
			return &rpc.Frame{Payload: rpc.Copy(req.Bytes())}, nil
		},
	}}
	server, client := rpctest.TLS(b)
	l := rpctest.Listen(b)
	rpctest.Serve(b, l, rpc.ServerConfig{TLS: server}, plain, x.Service(func(context.Context, Message) error { return nil }))
	conn := rpctest.Dial(b, l.Addr().String(), rpc.ClientConfig{TLS: client})
	dial := func(work bool) Conn {
		c, err := Dial(b.Context(), conn, work)
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	anchor := dial(true)
	b.Cleanup(anchor.Close)
	if err := Anchor(anchor, "s", 1); err != nil {
		b.Fatal(err)
	}
	for range 16 {
		p, err := NewPost(dial(true), "s", 1, true)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(p.Close)
		go func() { // ends with the post
			for {
				in, err := p.Next(context.Background())
				if err != nil {
					return
				}
				request, _ := in.ReadAll(context.Background(), 1000)
				_ = in.Reply(context.Background(), request)
			}
		}()
	}
	data := make([]byte, 100)
	echo := func(b *testing.B) func() {
		return func() {
			var resp rpc.Frame
			if err := conn.Call(b.Context(), "plain", "Echo", &rpc.Frame{Payload: rpc.Copy(data)}, &resp); err != nil {
				b.Error(err)
			}
			resp.Free()
		}
	}
	call := func(b *testing.B) func() {
		line := NewLine(dial(false))
		b.Cleanup(line.Close)
		reply := make([]byte, 200)
		return func() {
			c, a, _ := line.Begin(b.Context(), Request{Service: "s", Instance: 1, Size: 100, Data: data, Last: true, Wait: time.Minute, Timeout: time.Minute, Within: time.Minute})
			if a.What != Taken {
				b.Error(a.Err)
				return
			}
			for err := error(nil); err != io.EOF; {
				if _, err = c.Read(b.Context(), reply); err != nil && err != io.EOF {
					b.Error(err)
					return
				}
			}
		}
	}
	for name, caller := range map[string]func(*testing.B) func(){"grpc": echo, "exchange": call} {
		b.Run(name+"/1", func(b *testing.B) {
			do := caller(b)
			for b.Loop() {
				do()
			}
		})
		b.Run(name+"/16", func(b *testing.B) {
			b.SetParallelism(8) // of two processors
			b.RunParallel(func(pb *testing.PB) {
				for do := caller(b); pb.Next(); {
					do()
				}
			})
		})
	}
}
