// Command mutants shows that the tests can fail: it breaks the code in each of
// the ways that a list names, one at a time, and runs the tests that should
// notice. A mutant that none of them notices survives: the tests have a hole.
//
//	mutants [-root DIR] [-mutants FILE] [-run REGEXP] [-list | -check] [-suite] [-v]
//
// The source is never touched: the go command reads the broken file in the place
// of the sound one (its flag -overlay). Run it in the directory of its own module.
//
// It ends with 1 when the list is stale, or names tests that are not there, when
// the tests fail without a mutant, when a survivor has no reason in the list or no
// longer survives, or when fewer than 95 % of the mutants are killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	root := flag.String("root", ".", "directory of the module that is broken")
	file := flag.String("mutants", "mutants/mutants.txt", "the list")
	only := flag.String("run", "", "only mutants whose names match this regular expression")
	names := flag.Bool("list", false, "print the names and what they are about, and run nothing")
	check := flag.Bool("check", false, "only see whether the list fits the source")
	suite := flag.Bool("suite", false, "run all short tests of the package on a mutant that its own tests let live")
	verbose := flag.Bool("v", false, "print what the tests of each mutant said")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // what it made on the way goes, too
	defer stop()
	list, err := readList(*file)
	if err == nil {
		list, err = list.matching(*only)
	}
	if err == nil {
		err = list.check(*root)
	}
	switch {
	case err != nil || *check:
	case *names:
		for i := range list {
			fmt.Printf("%-34s %s\n", list[i].name, list[i].why)
		}
	default:
		err = run(ctx, list, &bench{root: *root, suite: *suite, verbose: *verbose})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		stop()
		os.Exit(1)
	}
	if *check {
		fmt.Printf("mutants: the %d mutants of the list fit the source\n", len(list))
	}
}

// matching are the mutants whose names match a regular expression.
func (l list) matching(expr string) (list, error) {
	match, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	var some list
	for i := range l {
		if match.MatchString(l[i].name) {
			some = append(some, l[i])
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("no mutant matches %q", expr)
	}
	return some, nil
}
