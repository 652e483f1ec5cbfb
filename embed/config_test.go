package embed_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftlock/raftlock"
	"github.com/raftlock/raftlock/embed"
)

// faultsOf lists the fields that an error of Open names.
func faultsOf(err error) (fields []string) {
	for line := range strings.Lines(err.Error()) {
		if rest, ok := strings.CutPrefix(line, "config: "); ok {
			field, _, _ := strings.Cut(rest, ":")
			fields = append(fields, field)
		}
	}
	return fields
}

func TestOpenNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	three := func() map[string]string {
		return map[string]string{"n1": "127.0.0.1:1", "n2": "127.0.0.1:2", "n3": "127.0.0.1:3"}
	}
	for name, test := range map[string]struct {
		change func(*embed.Config)
		fields []string
	}{
		"no name":                  {func(c *embed.Config) { c.Name = "" }, []string{"InitialCluster", "Name"}},
		"a name too long":          {func(c *embed.Config) { c.Name = strings.Repeat("n", 65) }, []string{"InitialCluster", "Name"}},
		"a name with a newline":    {func(c *embed.Config) { c.Name, c.InitialCluster = "a\nb", nil }, []string{"InitialCluster", "Name"}},
		"no directory":             {func(c *embed.Config) { c.DataDir = "" }, []string{"DataDir"}},
		"another cluster's name":   {func(c *embed.Config) { c.ClusterName = "\x00" }, []string{"ClusterName"}},
		"not among the members":    {func(c *embed.Config) { c.Name = "n4" }, []string{"InitialCluster"}},
		"an address without port":  {func(c *embed.Config) { c.InitialCluster["n2"] = "127.0.0.1" }, []string{"InitialCluster"}},
		"no address":               {func(c *embed.Config) { c.InitialCluster["n2"] = "" }, []string{"InitialCluster"}},
		"a peer far away":          {func(c *embed.Config) { c.InitialCluster["n2"] = "192.0.2.1:1" }, []string{"PeerTLS"}},
		"a peer by name":           {func(c *embed.Config) { c.InitialCluster["n2"] = "n2.example:1" }, []string{"PeerTLS"}},
		"listening on a wildcard":  {func(c *embed.Config) { c.ListenPeer = ":0" }, []string{"PeerTLS"}},
		"listening without port":   {func(c *embed.Config) { c.ListenPeer = "127.0.0.1" }, []string{"ListenPeer"}},
		"a wildcard of one":        {func(c *embed.Config) { c.InitialCluster, c.ListenPeer, c.Insecure = nil, "0.0.0.0:0", true }, []string{"InitialCluster"}},
		"no certificate":           {func(c *embed.Config) { c.PeerTLS = &tls.Config{} }, []string{"PeerTLS"}},
		"ticks too short":          {func(c *embed.Config) { c.TickInterval = time.Microsecond }, []string{"TickInterval"}},
		"too few ticks":            {func(c *embed.Config) { c.ElectionTicks = 2 }, []string{"ElectionTicks"}},
		"a request time-out below": {func(c *embed.Config) { c.RequestTimeout = -1 }, []string{"RequestTimeout"}},
		"a limit":                  {func(c *embed.Config) { c.Limits.LockWaiters = -1 }, []string{"Limits.LockWaiters"}},
		"all at once": {func(c *embed.Config) {
			c.DataDir, c.InitialCluster["n3"], c.ElectionTicks, c.Limits.Pending = "", "n3.example:1", 1, -1
			c.InitialCluster["n2"] = "192.0.2.1:1"
		}, []string{"DataDir", "ElectionTicks", "Limits.Pending", "PeerTLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			cfg := embed.Config{Name: "n1", DataDir: dir, InitialCluster: three(), ListenPeer: "127.0.0.1:0"}
			test.change(&cfg)
			m, err := embed.Open(cfg)
			if err == nil {
				_ = m.Close()
				t.Fatal("opened")
			}
			got := faultsOf(err)
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, test.fields) {
				t.Errorf("error names %q, want %q: %v", got, test.fields, err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the data directory is there: %v", err)
			}
		})
	}
}

func TestOpenNamesEveryMemberThatIsWrong(t *testing.T) {
	t.Parallel()
	cfg := embed.Config{Name: "n1", DataDir: t.TempDir(), InitialCluster: map[string]string{
		"n1": "127.0.0.1:1", "n2": "192.0.2.2:1", "n3": "192.0.2.3:1", "n4": "nowhere",
	}}
	_, err := embed.Open(cfg)
	if err == nil {
		t.Fatal("opened")
	}
	for _, word := range []string{"n2", "n3", "n4", "192.0.2.3:1"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error does not name %q: %v", word, err)
		}
	}
	for range 20 {
		if _, again := embed.Open(cfg); again == nil || again.Error() != err.Error() {
			t.Fatalf("the same faults in other words:\n%v\n%v", err, again)
		}
	}
}

func TestOpenClosesTheListenerOfARefusedConfig(t *testing.T) {
	t.Parallel()
	full := newSite(t, "n1")
	full.start("n1")
	for name, cfg := range map[string]embed.Config{
		"a fault":           {Name: "n1"},
		"a fault of limits": {Name: "n1", DataDir: t.TempDir(), Limits: raftlock.Limits{Locks: -1}},
		"a full directory":  {Name: "n1", DataDir: filepath.Join(full.dir, "n1")},
		"an address too":    {Name: "n1", DataDir: t.TempDir(), ListenPeer: "127.0.0.1:0"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.PeerListener = l
		if m, err := embed.Open(cfg); err == nil {
			_ = m.Close()
			t.Errorf("%s: opened", name)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is still open: %v", name, err)
		}
	}
}

func TestOpenWhenTheAddressIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, "n1", "n2")
	taken := s.held["n1"].Addr().String()
	cfg := s.config("n2")
	_ = cfg.PeerListener.Close()
	cfg.PeerListener, cfg.ListenPeer = nil, taken
	if m, err := embed.Open(cfg); err == nil {
		_ = m.Close()
		t.Fatal("opened")
	} else if !strings.Contains(err.Error(), taken) {
		t.Errorf("error does not name %s: %v", taken, err)
	}
	cfg.ListenPeer = "127.0.0.1:0"
	openMember(t, cfg) // the directory is free again
}

// Insecure is the word that a reader of the configuration stumbles over.
func TestOpenInsecureOnAnyNetwork(t *testing.T) {
	t.Parallel()
	m := openMember(t, embed.Config{
		Name: "n1", DataDir: t.TempDir(), InitialCluster: map[string]string{"n1": "192.0.2.1:7101"},
		ListenPeer: ":0", Insecure: true, TickInterval: tick,
	})
	awaitReady(t, "n1", m)
}

func TestParseCluster(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]map[string]string{
		"n1=h:1":                  {"n1": "h:1"},
		"n1=h:1,n2=[::1]:2":       {"n1": "h:1", "n2": "[::1]:2"},
		" n1 = h:1 ,\n\tn2=h:2\n": {"n1": "h:1", "n2": "h:2"},
		"n1=h:http":               {"n1": "h:http"},
		"a=b=c:1":                 {"a": "b=c:1"},

		"":                nil,
		",":               nil,
		"n1=h:1,":         nil,
		"n1":              nil,
		"n1=":             nil,
		"=h:1":            nil,
		" =h:1":           nil,
		"n1=h":            nil,
		"n1=h:":           nil,
		"n1=::1":          nil,
		"n1=h:1,n1=h:2":   nil,
		"n1=h:1, n1 =h:2": nil,
		"n1=h:1;n2=h:2":   nil,
	} {
		got, err := embed.ParseCluster(text)
		if (err == nil) != (want != nil) || !maps.Equal(got, want) {
			t.Errorf("ParseCluster(%q) = %v, %v; want %v", text, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("ParseCluster(%q) does not say what it read: %v", text, err)
		}
	}
}

// What is read can be written, and reads the same again.
func FuzzParseCluster(f *testing.F) {
	for _, seed := range []string{"", "n1=h:1", "n1=127.0.0.1:7101,n2=[::1]:7102", " a = b:c ,d=e:f", "a=b=c:1", "n1=h:,=", "n1=h:1,n1=h:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cluster, err := embed.ParseCluster(text)
		if err != nil {
			if cluster != nil {
				t.Fatalf("%v beside %v", cluster, err)
			}
			return
		}
		if len(cluster) == 0 {
			t.Fatal("no member, no error")
		}
		var parts []string
		for name, addr := range cluster {
			_, port, err := net.SplitHostPort(addr)
			if name == "" || err != nil || port == "" {
				t.Fatalf("took member %q at %q: %v", name, addr, err)
			}
			parts = append(parts, name+"="+addr)
		}
		again, err := embed.ParseCluster(strings.Join(parts, ","))
		if err != nil || !maps.Equal(again, cluster) {
			t.Fatalf("%q reads as %v, that as %v, %v", text, cluster, again, err)
		}
	})
}
