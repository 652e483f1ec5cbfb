package testcluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock/client"
	"github.com/raftlock/raftlock/testcluster"
)

func list(t *testing.T, cl client.RaftLockClient, req *client.GetLocksRequest) *client.GetLocksResult {
	t.Helper()
	res, err := cl.GetLocks(t.Context(), req)
	if err != nil {
		t.Fatalf("list %+v: %v", req, err)
	}
	return res
}

func idsOf(res *client.GetLocksResult) string {
	var ids []string
	for _, info := range res.Locks {
		ids = append(ids, info.LockID)
	}
	return strings.Join(ids, " ")
}

// A listing selects by every filter, and by all of them together.
func TestGetLocksFilters(t *testing.T) {
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		for i, id := range []string{"app/db/1", "app/db/2", "app/web", "job", "jöb", "ö"} {
			take(t, cl, &client.AcquireRequest{
				LockID: id, ClientID: fmt.Sprint("me", i%2), TTL: time.Duration(i+1) * 10 * time.Second,
				Metadata: map[string]string{"n": fmt.Sprint(i % 3), "all": "yes"},
			})
		}
		give(t, cl, hold(t, cl, "free", "me"))
		waiting(t.Context(), cl, client.AcquireRequest{LockID: "job", ClientID: "w"})
		at := func(seconds int) *time.Time {
			end := time.Now().Add(time.Duration(seconds) * time.Second)
			return &end
		}
		tests := []struct {
			name   string
			filter *client.LockFilter
			want   string
		}{
			{"none", nil, "app/db/1 app/db/2 app/web free job jöb ö"},
			{"zero", &client.LockFilter{}, "app/db/1 app/db/2 app/web free job jöb ö"},
			{"star", &client.LockFilter{LockIDPattern: "*"}, "app/db/1 app/db/2 app/web free job jöb ö"},
			{"prefix", &client.LockFilter{LockIDPattern: "app/*"}, "app/db/1 app/db/2 app/web"},
			{"suffix", &client.LockFilter{LockIDPattern: "*b"}, "app/web job jöb"},
			{"middle", &client.LockFilter{LockIDPattern: "a**/d*/?"}, "app/db/1 app/db/2"},
			{"one character", &client.LockFilter{LockIDPattern: "j?b"}, "job jöb"},
			{"any one character", &client.LockFilter{LockIDPattern: "?"}, "ö"},
			{"the whole id", &client.LockFilter{LockIDPattern: "app"}, ""},
			{"exact", &client.LockFilter{LockIDPattern: "app/web"}, "app/web"},
			{"no other wildcards", &client.LockFilter{LockIDPattern: "[aj]ob"}, ""},
			{"owner", &client.LockFilter{OwnerIDPattern: "me1"}, "app/db/2 job ö"},
			{"owner pattern", &client.LockFilter{OwnerIDPattern: "m?0"}, "app/db/1 app/web jöb"},
			{"held", &client.LockFilter{OnlyHeld: true}, "app/db/1 app/db/2 app/web job jöb ö"},
			{"contested", &client.LockFilter{OnlyContested: true}, "job"},
			{"metadata", &client.LockFilter{MetadataFilter: map[string]string{"n": "1", "all": "yes"}}, "app/db/2 jöb"},
			{"metadata that nobody has", &client.LockFilter{MetadataFilter: map[string]string{"n": "1", "other": ""}}, ""},
			{"expires before", &client.LockFilter{ExpiresBefore: at(35)}, "app/db/1 app/db/2 app/web"},
			{"expires after", &client.LockFilter{ExpiresAfter: at(35)}, "job jöb ö"},
			{"expires between", &client.LockFilter{ExpiresAfter: at(15), ExpiresBefore: at(45)}, "app/db/2 app/web job"},
			{"expires long ago", &client.LockFilter{ExpiresBefore: &time.Time{}}, ""},
			{"all together", &client.LockFilter{
				LockIDPattern: "*o*", OwnerIDPattern: "me*", OnlyHeld: true, OnlyContested: true,
				ExpiresAfter: at(1), ExpiresBefore: at(100), MetadataFilter: map[string]string{"all": "yes"},
			}, "job"},
			{"all but one", &client.LockFilter{LockIDPattern: "*o*", OwnerIDPattern: "me0", OnlyContested: true}, ""},
		}
		for _, test := range tests {
			res := list(t, cl, &client.GetLocksRequest{Filter: test.filter})
			if got := idsOf(res); got != test.want {
				t.Errorf("%s: %s, want %s", test.name, got, test.want)
			}
			if int(res.TotalMatching) != len(res.Locks) || res.HasMore {
				t.Errorf("%s: %d locks, %d in total, more: %v", test.name, len(res.Locks), res.TotalMatching, res.HasMore)
			}
		}

		end := look(t, cl, "app/web").ExpiresAt // the bounds are inclusive
		res := list(t, cl, &client.GetLocksRequest{Filter: &client.LockFilter{ExpiresBefore: &end, ExpiresAfter: &end}})
		if got := idsOf(res); got != "app/web" {
			t.Errorf("at the end itself: %s", got)
		}
	})
}

// What a listing says of a lock is what GetLockInfo says.
func TestGetLocksSaysWhatGetLockInfoSays(t *testing.T) {
	eachPlace(t, func(t *testing.T, _ *testcluster.Cluster, cl client.Client) {
		take(t, cl, &client.AcquireRequest{LockID: "a", ClientID: "me", Metadata: map[string]string{"k": "v"}})
		for i := range 3 {
			waiting(t.Context(), cl, client.AcquireRequest{LockID: "a", ClientID: fmt.Sprint("w", i), Priority: int32(i)})
		}
		give(t, cl, hold(t, cl, "b", "me"))
		for _, waiters := range []bool{false, true} {
			for _, listed := range list(t, cl, &client.GetLocksRequest{IncludeWaiters: waiters}).Locks {
				info, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: listed.LockID, IncludeWaiters: waiters})
				if err != nil {
					t.Fatal(err)
				}
				if len(info.WaitersInfo) != len(listed.WaitersInfo) || waiters && int(info.WaiterCount) != len(info.WaitersInfo) {
					t.Errorf("%d waiters listed, %d known", len(listed.WaitersInfo), len(info.WaitersInfo))
				}
				for i, w := range info.WaitersInfo {
					if got := *listed.WaitersInfo[i]; fmt.Sprint(got) != fmt.Sprint(*w) {
						t.Errorf("the waiter is %+v, and %+v", got, *w)
					}
				}
				one, two := *info, *listed
				one.WaitersInfo, two.WaitersInfo = nil, nil
				if fmt.Sprint(one) != fmt.Sprint(two) {
					t.Errorf("the lock is %+v, and %+v", two, one)
				}
			}
		}
	})
}

// Pages neither repeat nor skip a lock that stands, while others come and go.
func TestGetLocksPages(t *testing.T) {
	const locks = 60
	eachPlace(t, func(t *testing.T, _ *testcluster.Cluster, cl client.Client) {
		id := func(i int) string { return fmt.Sprintf("lock%04d", i) }
		var want []string
		for i := 0; i < 2*locks; i += 2 {
			hold(t, cl, id(i), "me")
			want = append(want, id(i))
		}
		filters := []*client.LockFilter{nil, {LockIDPattern: "lock*"}, {OnlyHeld: true, OwnerIDPattern: "me"}}
		for _, filter := range filters {
			for _, limit := range []int32{1, 7, locks - 1, locks, locks + 1} {
				var got []string
				for after := ""; ; {
					res := list(t, cl, &client.GetLocksRequest{Filter: filter, Limit: limit, StartAfter: after})
					if len(res.Locks) > int(limit) || res.TotalMatching != locks {
						t.Fatalf("limit %d: %d locks, %d in total", limit, len(res.Locks), res.TotalMatching)
					}
					for _, info := range res.Locks {
						got = append(got, info.LockID)
					}
					if !res.HasMore {
						break
					}
					after = got[len(got)-1]
				}
				if !slices.Equal(got, want) {
					t.Errorf("limit %d: the pages have %v", limit, got)
				}
			}
			for _, offset := range []int32{0, 1, locks / 2, locks - 1, locks, locks + 1, 1<<31 - 1} {
				res := list(t, cl, &client.GetLocksRequest{Filter: filter, Offset: offset, Limit: 5})
				rest := max(0, locks-int(offset))
				if len(res.Locks) != min(5, rest) || res.HasMore != (rest > 5) || len(res.Locks) > 0 && res.Locks[0].LockID != want[offset] {
					t.Errorf("offset %d: %s, more: %v", offset, idsOf(res), res.HasMore)
				}
				if all := list(t, cl, &client.GetLocksRequest{Filter: filter, Offset: offset}); len(all.Locks) != rest || all.HasMore {
					t.Errorf("offset %d: %d locks without a limit", offset, len(all.Locks))
				}
			}
		}
		if res := list(t, cl, &client.GetLocksRequest{StartAfter: "lock0003x", Limit: 1}); idsOf(res) != id(4) {
			t.Errorf("behind a lock that is not there: %s", idsOf(res))
		}
		if res := list(t, cl, &client.GetLocksRequest{StartAfter: id(0), Offset: 1, Limit: 1}); idsOf(res) != id(4) {
			t.Errorf("offset behind a start: %s", idsOf(res))
		}

		// Others come and go between the pages.
		var got []string
		for i, after := 1, ""; ; i += 2 {
			res := list(t, cl, &client.GetLocksRequest{Limit: 3, StartAfter: after})
			for _, info := range res.Locks {
				after = info.LockID
				if slices.Contains(want, after) {
					got = append(got, after)
				}
			}
			if !res.HasMore {
				break
			}
			hold(t, cl, id(i), "other")
		}
		if !slices.Equal(got, want) {
			t.Errorf("the pages have %v of those that stand", got)
		}
	})
}

// Without a limit a listing is complete, however many pages that takes.
func TestGetLocksGathersAll(t *testing.T) {
	locks := tries(1200, 2500)
	eachPlace(t, func(t *testing.T, c *testcluster.Cluster, cl client.Client) {
		for i := range locks {
			hold(t, c.Client(), fmt.Sprintf("lock%04d", i), "me")
		}
		for _, filter := range []*client.LockFilter{nil, {OnlyHeld: true}} {
			res := list(t, cl, &client.GetLocksRequest{Filter: filter})
			if len(res.Locks) != locks || int(res.TotalMatching) != locks || res.HasMore {
				t.Errorf("%d locks, %d in total, more: %v", len(res.Locks), res.TotalMatching, res.HasMore)
			}
			if !slices.IsSortedFunc(res.Locks, func(a, b *client.LockInfo) int { return strings.Compare(a.LockID, b.LockID) }) {
				t.Error("the locks are not in the order of their ids")
			}
			page := list(t, cl, &client.GetLocksRequest{Filter: filter, Limit: int32(locks)})
			if len(page.Locks) != 1000 || !page.HasMore || int(page.TotalMatching) != locks {
				t.Errorf("one page: %d locks, %d in total, more: %v", len(page.Locks), page.TotalMatching, page.HasMore)
			}
		}
	})
}

// A freed lock stays listed for a minute.
func TestFreedLocksAreListedForAMinute(t *testing.T) {
	eachPlace(t, func(t *testing.T, _ *testcluster.Cluster, cl client.Client) {
		lock := hold(t, cl, "a", "me")
		give(t, cl, lock)
		time.Sleep(59 * time.Second)
		hold(t, cl, "b", "me") // forgetting rides on other entries
		if info := look(t, cl, "a"); info.OwnerID != "" || info.Version != lock.Version {
			t.Errorf("the freed lock is %+v", info)
		}
		time.Sleep(time.Second + late)
		hold(t, cl, "c", "me")
		if _, err := cl.GetLockInfo(t.Context(), &client.GetLockInfoRequest{LockID: "a"}); !errors.Is(err, client.ErrLockNotFound) {
			t.Errorf("after a minute: %v", err)
		}
		if got := idsOf(list(t, cl, &client.GetLocksRequest{})); got != "b c" {
			t.Errorf("after a minute %s are listed", got)
		}
	})
}
