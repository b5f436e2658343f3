package node

import (
	"context"
	"slices"

	"dos/chunk"
	"dos/internal/admission"
	"dos/internal/steward"
	"dos/meta"
	"dos/meta/members"
	"dos/meta/replica"
	"dos/procfs/cluster"
)

// machines are all machines as the one in charge sees them.
func (m *Machine) machines(ctx context.Context, member replica.Status) []cluster.Machine {
	known := m.fleet.Map()
	standings := members.Standings(known.Stores, known.Nodes)
	in := 0
	for _, is := range standings {
		if is == members.In {
			in++
		}
	}
	list := m.view().summary(ctx)
	for i := range list {
		one := &list[i]
		for _, r := range member.Members {
			switch {
			case replica.MachineOf(r.ID) != one.Name:
			case r.ID == member.Leader:
				one.Meta = cluster.Leader
			case r.Voter:
				one.Meta = cluster.Voter
			default:
				one.Meta = cluster.Learner
			}
		}
		own, out := 0, 0
		for _, s := range known.Stores {
			if s.Node != one.Name {
				continue
			}
			if standings[s.ID] == members.In {
				own++
			}
			if s.Out {
				out++
			}
		}
		one.Out = out > 0 && own == 0
		// What is away for too long is given up as long as there is somewhere to
		// put what it had (see internal/steward).
		if one.State == cluster.Down && own > 0 && in-own >= known.Code.Shards() {
			since := max(one.Seen, meta.At(m.started))
			one.Rebuild = meta.At(since.Std().Add(steward.Limit(known)))
		}
	}
	return list
}

// worst is how many shards of one stripe may lie on one machine: as many as the
// table of placement groups puts there, once all is where the table wants it.
func worst(known members.Map, settled bool) int {
	node := make(map[chunk.StoreID]string)
	has := make(map[string]int)
	most := 0
	for _, s := range known.Stores {
		node[s.ID] = s.Node
		has[s.Node]++
		most = max(most, has[s.Node])
	}
	shards := known.Code.Shards()
	if !settled {
		return min(most, shards)
	}
	most = 0
	for _, g := range known.Groups {
		on := make(map[string]int)
		for _, id := range g.Members[:min(shards, len(g.Members))] {
			on[node[id]]++
			most = max(most, on[node[id]])
		}
	}
	return most
}

// moving adds how much is left on machines that are being emptied.
func (u *upkeep) moving(ctx context.Context, s *cluster.Status) error {
	if !slices.ContainsFunc(s.Machines, func(m cluster.Machine) bool { return m.Draining || m.Out }) {
		return nil
	}
	loads, err := u.stripes().Stored(ctx)
	if err != nil {
		return err
	}
	for i := range s.Machines {
		m := &s.Machines[i]
		if !m.Draining && !m.Out {
			continue
		}
		for _, st := range s.Stores {
			if st.Node == m.Name {
				m.Left += loads[chunk.StoreID(st.ID)].Shards
			}
		}
	}
	return nil
}

// A machineSight is the cluster as this machine's own mount shows it: what this
// machine is in charge of it need not ask anybody.
type machineSight struct {
	view
	m *Machine
}

func (s machineSight) Status(ctx context.Context) (cluster.Status, error) {
	if s.m.charge.Load() != nil {
		return s.m.clusterStatus(ctx)
	}
	return s.view.Status(ctx)
}

func (s machineSight) CreateToken(ctx context.Context, w admission.TokenWish) (string, error) {
	return machineAccess{s.m}.createToken(ctx, w)
}

func (s machineSight) Remove(ctx context.Context, name string) error {
	return machineAdmin{s.m}.Remove(ctx, name)
}

func (s machineSight) Log() []cluster.Event {
	if s.m.charge.Load() != nil {
		return s.m.events.Log()
	}
	return s.view.Log()
}

func (s machineSight) Since(ctx context.Context, after uint64) ([]cluster.Event, error) {
	if s.m.charge.Load() != nil {
		return s.m.events.Since(ctx, after)
	}
	return s.view.Since(ctx, after)
}

// watchMachines notes for people which machines come and go.
func (m *Machine) watchMachines(ctx context.Context) error {
	var down map[string]bool // by name
	spoken := new(spoken)
	for {
		changed := m.fleet.Changed()
		now := make(map[string]bool)
		for _, one := range m.view().summary(ctx) {
			is := one.State == cluster.Down
			was, known := down[one.Name]
			if is && !known && one.Seen == 0 {
				continue // it was not asked yet, or is away for longer than we know
			}
			now[one.Name] = is
			switch {
			case is && !was:
				m.events.Add("machine %s does not answer", one.Name)
			case !is && was:
				m.events.Add("machine %s is back", one.Name)
			case !known && len(down) > 0:
				m.events.Add("machine %s has joined", one.Name)
			}
		}
		for name := range down {
			if _, known := now[name]; !known {
				m.events.Add("machine %s was removed", name)
			}
		}
		down = now
		spoken.look(m.fleet.Map().Nodes, m.events.Add)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// spoken is what was said of the machines when they were looked at last.
type spoken struct{ last map[string]members.Node }

// look notes what has changed.
func (s *spoken) look(known []members.Node, note func(format string, args ...any)) {
	first := s.last == nil
	now := make(map[string]members.Node)
	for _, n := range known {
		now[n.Name] = n
		was := s.last[n.Name]
		switch {
		case first:
		case n.Drain && !was.Drain:
			note("machine %s is being emptied: %s", n.Name, n.Why)
		case was.Drain && !n.Drain:
			note("machine %s is in use again", n.Name)
		}
		switch {
		case first:
		case n.Hold && !was.Hold:
			note("machine %s is to begin no more tasks: %s", n.Name, orNothing(n.HoldWhy))
		case was.Hold && !n.Hold:
			note("machine %s may begin tasks again", n.Name)
		}
	}
	s.last = now
}

func orNothing(why string) string {
	if why == "" {
		return administratorSaid
	}
	return why
}
