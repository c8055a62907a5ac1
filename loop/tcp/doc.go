// Package tcp has the sockets of a driver, whatever then carries its connections: bound, listening, accepting through every
// shortage, and dialling.
package tcp
