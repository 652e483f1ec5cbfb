package testcluster

import "context"

// TransferLeadership hands the leadership to member i and returns when it leads.
// It fails the test when the member is down, or cannot take it.
func (c *Cluster) TransferLeadership(i int) {
	c.tb.Helper()
	if !c.isAlive("TransferLeadership") {
		return
	}
	c.node(i)
	from := c.Leader()
	if from == i {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.node(from).TransferLeadership(ctx, c.roll.list()[i].name); err != nil {
		c.tb.Fatalf("testcluster: transfer the leadership from member %d to member %d: %v", from, i, err)
	}
	c.wait("leader by transfer", func() bool { return c.leader() == i })
}
