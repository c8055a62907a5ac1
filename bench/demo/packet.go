package main

import "encoding/binary"

// The demo's packets, inside the driver's framing. Integers are big-endian.
//
//	login    kind player(4)                              player → server
//	welcome  kind zone(2)                                server → player
//	move     kind seq(4) x(2) y(2) [stamp(8)]            player → server
//	pong     kind stamp(8)                               server → player: at once, for a move with a stamp
//	state    kind tick(4) {player(4) seq(4) x(2) y(2)}…  server → every player of a zone
//	logout   kind                                        player → server
//	bye      kind moves(4)                               server → player: after the last state; how many moves were applied
const (
	kindLogin byte = 1 + iota
	kindWelcome
	kindMove
	kindPong
	kindState
	kindLogout
	kindBye
)

const (
	moveSize        = 1 + 4 + 2 + 2
	stampedMoveSize = moveSize + 8
	pongSize        = 1 + 8
	stateHeaderSize = 1 + 4
)

func login(player uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindLogin}, player)
}

func welcome(zone int) []byte {
	return binary.BigEndian.AppendUint16([]byte{kindWelcome}, uint16(zone))
}

func bye(moves uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindBye}, moves)
}

// position is where a player is after its move number seq.
type position struct {
	seq  uint32
	x, y uint16
}

func appendPosition(b []byte, p position) []byte {
	b = binary.BigEndian.AppendUint32(b, p.seq)
	b = binary.BigEndian.AppendUint16(b, p.x)
	return binary.BigEndian.AppendUint16(b, p.y)
}

func readPosition(b []byte) position {
	return position{
		seq: binary.BigEndian.Uint32(b),
		x:   binary.BigEndian.Uint16(b[4:]),
		y:   binary.BigEndian.Uint16(b[6:]),
	}
}
