package walstore

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns the logger that etcd's code gets. What it calls fatal must not
// end the process: Fatal panics like Panic does, and guard turns both into
// errors. (zap's own silent logger exits.)
func newZap(log *slog.Logger) *zap.Logger {
	return zap.New(slogCore{log: log}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore passes zap's entries on to slog.
type slogCore struct{ log *slog.Logger }

func (c slogCore) Enabled(level zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(level))
}

func (c slogCore) With(fields []zapcore.Field) zapcore.Core {
	return slogCore{log: c.log.With(slogArgs(fields)...)}
}

func (c slogCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c slogCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), slogLevel(entry.Level), "wal: "+entry.Message, slogArgs(fields)...)
	return nil
}

func (c slogCore) Sync() error { return nil }

func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level <= zapcore.DebugLevel:
		return slog.LevelDebug
	case level == zapcore.InfoLevel:
		return slog.LevelInfo
	case level == zapcore.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelError
	}
}

func slogArgs(fields []zapcore.Field) []any {
	args := make([]any, 0, len(fields))
	for _, field := range fields {
		one := zapcore.NewMapObjectEncoder()
		field.AddTo(one)
		for key, value := range one.Fields { // one field each
			args = append(args, slog.Any(key, value))
		}
	}
	return args
}

// guard calls into etcd's code and returns its panics as errors: a library
// does not end its host.
func guard(act string, call func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: panic: %v", act, r)
		}
	}()
	if err := call(); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	return nil
}
