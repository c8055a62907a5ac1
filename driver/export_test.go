package driver

// ParseProxyHeader gives the tests the parser of PROXY protocol headers.
var ParseProxyHeader = parseProxyHeader
