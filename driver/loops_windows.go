package driver

import (
	"errors"

	"gridstream/loop/link"
)

// onLoops is an error: the event loops need epoll or kqueue.
func onLoops() (link.Start, error) {
	return nil, &Error{Op: "New", Code: ErrSocketCreate, Err: errors.New("no event loops on Windows: use package driver/stdnet")}
}
