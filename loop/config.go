package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/panjf2000/gnet/v2/pkg/logging"
)

// ErrNotRegistered: gnet's poller refused a connection.
var ErrNotRegistered = errors.New("loop: the event loop could not register the connection")

// gnetLogger gives gnet's messages to a slog.Logger. gnet's own logger is global to the process and writes to stdout.
type gnetLogger struct{ *slog.Logger }

var _ logging.Logger = gnetLogger{}

func (l gnetLogger) log(level slog.Level, format string, args []any) {
	if ctx := context.Background(); l.Enabled(ctx, level) {
		l.Log(ctx, level, fmt.Sprintf("gnet: "+format, args...))
	}
}

func (l gnetLogger) Debugf(format string, args ...any) { l.log(slog.LevelDebug, format, args) }
func (l gnetLogger) Infof(format string, args ...any)  { l.log(slog.LevelDebug, format, args) }
func (l gnetLogger) Warnf(format string, args ...any)  { l.log(slog.LevelWarn, format, args) }
func (l gnetLogger) Errorf(format string, args ...any) { l.log(slog.LevelError, format, args) }
func (l gnetLogger) Fatalf(format string, args ...any) { l.log(slog.LevelError, format, args) }
