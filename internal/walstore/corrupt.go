package walstore

import (
	"errors"
	"fmt"

	"github.com/raftlock/raftlock"
)

// The operator reads this at three in the morning: it says what not to do, too.
const remedy = "nothing was changed; do not delete single files: put back exactly what was lost, " +
	"or move the directory away for inspection, have the member replaced (Node.ReplaceMember at a member that runs, " +
	"or raftlock member replace NAME), and start it with an empty one"

// corrupt is the error for a file or directory that is wrong as a whole. What
// only a newer version can have written is none of that.
func corrupt(path string, cause error) error {
	if errors.Is(cause, raftlock.ErrUnknownFormat) {
		return fmt.Errorf("%s: %w (nothing was changed)", path, cause)
	}
	return fmt.Errorf("%w: %s: %w (%s)", raftlock.ErrCorrupt, path, cause, remedy)
}

// corruptAt is the error for a file that is right up to a byte offset.
func corruptAt(path string, offset int, cause error) error {
	return corrupt(path, fmt.Errorf("offset %d: %w", offset, cause))
}

func corruptFile(path, format string, args ...any) error {
	return corrupt(path, fmt.Errorf(format, args...))
}
