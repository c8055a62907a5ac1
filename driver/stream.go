package driver

// Stream is the driver on event loops, without TLS: GridMate's StreamSocketDriver. It implements Driver, whose
// documentation has its methods.
type Stream struct{ *core }

var _ Driver = (*Stream)(nil)

// New makes a driver. It starts nothing: that is Initialize's. A wrong Config is an error that names the field and its value.
func New(cfg Config) (*Stream, error) {
	d, err := newCore(cfg, newEngineTransport)
	if err != nil {
		return nil, err
	}
	return &Stream{d}, nil
}
