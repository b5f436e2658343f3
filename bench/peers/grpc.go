package main

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"dos/bench/load"
)

// plainGRPC is a server of one method and a client, as they come: protobuf messages on one
// connection, without TLS.
type plainGRPC struct {
	server *grpc.Server
	conn   *grpc.ClientConn
	done   chan error // of the server
}

// echo is the service's method, written as protoc-gen-go-grpc does.
var echo = grpc.ServiceDesc{
	ServiceName: "bench",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		return in, decode(in)
	}}},
}

func (p *plainGRPC) start(context.Context, string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.server, p.done = grpc.NewServer(), make(chan error, 1)
	p.server.RegisterService(&echo, nil)
	go func() { p.done <- p.server.Serve(l) }()
	p.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	return err
}

func (p *plainGRPC) stop() error {
	if p.server == nil {
		return nil
	}
	var err error
	if p.conn != nil {
		err = p.conn.Close()
	}
	p.server.Stop()
	<-p.done
	return err
}

func (p *plainGRPC) Call(ctx context.Context, request []byte) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	err := p.conn.Invoke(ctx, "/bench/Echo", wrapperspb.Bytes(request), out)
	return out.Value, err
}

func (p *plainGRPC) measure(ctx context.Context, during time.Duration, say func(string, float64)) error {
	for cell, n := range map[string]int{"rpc": 1, "rpc x16": contenders} {
		rate, err := load.Call(ctx, p, n, during)
		if err != nil {
			return err
		}
		say(cell, rate)
	}
	return nil
}
