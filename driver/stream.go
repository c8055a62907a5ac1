package driver

import "gridstream/loop/link"

// Stream is the driver on event loops, without TLS: GridMate's StreamSocketDriver. It implements Driver, whose
// documentation has its methods.
type Stream struct{ *core }

var _ Driver = (*Stream)(nil)

// New makes a driver. It starts nothing: that is Initialize's. A wrong Config is an error that names the field and its value.
func New(cfg Config) (*Stream, error) {
	start, err := onLoops()
	if err != nil {
		return nil, err
	}
	return NewOn(cfg, start)
}

// NewOn is New on connections that something else than the event loops carries: package stdnet's way in.
func NewOn(cfg Config, start link.Start) (*Stream, error) {
	d, err := newCore(cfg, start)
	if err != nil {
		return nil, err
	}
	return &Stream{d}, nil
}
