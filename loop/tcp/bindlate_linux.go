package tcp

import "syscall"

// bindLate has a socket that is bound to an address, and not to a port, choose its port at connect: then the same port serves for
// several destinations.
func bindLate(fd int) {
	const ipBindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT, linux/in.h; since Linux 4.2, harmless before
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
}
