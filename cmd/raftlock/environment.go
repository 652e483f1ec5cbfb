package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// fromEnvironment has flags of a command take their values from the environment
// when the command line does not give them: --client-id from
// RAFTLOCK_CLIENT_ID. An empty variable counts as none.
func fromEnvironment(cmd *cobra.Command, flags ...string) {
	for _, name := range flags {
		flag := cmd.Flags().Lookup(name)
		flag.Usage += " [$" + variable(name) + "]"
	}
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range flags {
			value := os.Getenv(variable(name))
			if value == "" || cmd.Flags().Changed(name) {
				continue
			}
			if err := cmd.Flags().Set(name, value); err != nil {
				return misuse("environment variable %s: %w", variable(name), err)
			}
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

func variable(flag string) string {
	return "RAFTLOCK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
