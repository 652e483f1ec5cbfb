package testcluster

import (
	"context"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/internal/clock"
)

// outside is a member's client as other machines have it: the ends of grants are
// instants of package time, not of the member's clock, as far away as that said.
type outside struct {
	client.Client
	warp *clock.Warp // the member's clock
}

// instant is one of the member's clock, which may stand still when an answer comes
// that is older.
func (o outside) instant(t *time.Time) {
	if !t.IsZero() {
		*t = o.warp.There(*t)
	}
}

func (o outside) lock(l *client.Lock) {
	if l != nil {
		o.instant(&l.ExpiresAt)
	}
}

func (o outside) info(info *client.LockInfo) {
	if info == nil {
		return
	}
	o.instant(&info.ExpiresAt)
	for _, w := range info.WaitersInfo {
		o.instant(&w.TimeoutAt)
	}
}

func (o outside) Acquire(ctx context.Context, req *client.AcquireRequest) (*client.AcquireResult, error) {
	result, err := o.Client.Acquire(ctx, req)
	if result != nil {
		o.lock(result.Lock)
	}
	return result, err
}

func (o outside) Renew(ctx context.Context, req *client.RenewRequest) (*client.RenewResult, error) {
	result, err := o.Client.Renew(ctx, req)
	if result != nil {
		o.lock(result.Lock)
	}
	return result, err
}

func (o outside) GetLockInfo(ctx context.Context, req *client.GetLockInfoRequest) (*client.LockInfo, error) {
	info, err := o.Client.GetLockInfo(ctx, req)
	o.info(info)
	return info, err
}

func (o outside) GetLocks(ctx context.Context, req *client.GetLocksRequest) (*client.GetLocksResult, error) {
	result, err := o.Client.GetLocks(ctx, req)
	if result != nil {
		for _, info := range result.Locks {
			o.info(info)
		}
	}
	return result, err
}
