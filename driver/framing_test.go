package driver_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gridstream/driver"
)

// framings are all that come with the driver.
var framings = []driver.Framing{
	driver.LengthPrefix16BE,
	driver.LengthPrefix16LE,
	driver.LengthPrefix32BE,
	driver.LengthPrefix32LE,
	driver.Varint,
}

// legalFrames are the vectors of docs/wire-format.md.
var legalFrames = []struct {
	framing driver.Framing
	length  string // in hex, what comes before the packet
	size    int    // of the packet
	read    bool   // it is read, but written shorter
}{
	{framing: driver.LengthPrefix16BE, length: "0001", size: 1},
	{framing: driver.LengthPrefix16BE, length: "0002", size: 2},
	{framing: driver.LengthPrefix16BE, length: "012c", size: 300},   // 0x01<<8 + 0x2c
	{framing: driver.LengthPrefix16BE, length: "ffff", size: 65535}, // the most

	{framing: driver.LengthPrefix16LE, length: "0100", size: 1},
	{framing: driver.LengthPrefix16LE, length: "0200", size: 2},
	{framing: driver.LengthPrefix16LE, length: "2c01", size: 300}, // 0x2c + 0x01<<8
	{framing: driver.LengthPrefix16LE, length: "ffff", size: 65535},

	{framing: driver.LengthPrefix32BE, length: "00000001", size: 1},
	{framing: driver.LengthPrefix32BE, length: "00000002", size: 2},
	{framing: driver.LengthPrefix32BE, length: "0000012c", size: 300},
	{framing: driver.LengthPrefix32BE, length: "00010000", size: 65536}, // 0x01<<16

	{framing: driver.LengthPrefix32LE, length: "01000000", size: 1},
	{framing: driver.LengthPrefix32LE, length: "02000000", size: 2},
	{framing: driver.LengthPrefix32LE, length: "2c010000", size: 300},
	{framing: driver.LengthPrefix32LE, length: "00000100", size: 65536},

	{framing: driver.Varint, length: "01", size: 1},
	{framing: driver.Varint, length: "02", size: 2},
	{framing: driver.Varint, length: "7f", size: 127},       // the most in one byte
	{framing: driver.Varint, length: "8001", size: 128},     // 0x00 + 0x01<<7
	{framing: driver.Varint, length: "ac02", size: 300},     // 0x2c + 0x02<<7
	{framing: driver.Varint, length: "808004", size: 65536}, // 0x04<<14
	{framing: driver.Varint, length: "8200", size: 2, read: true},
	{framing: driver.Varint, length: "8280808000", size: 2, read: true}, // padded to the longest legal form
}

// badFrames are the vectors of docs/wire-format.md that end a connection; maxPacketSize is 1000 = 0x3e8.
var badFrames = []struct {
	framing driver.Framing
	bytes   string // in hex
	earlier int    // of bytes: after so many it is clear
	names   string // the value that the error names
}{
	{driver.LengthPrefix16BE, "0000", 2, "length of 0"},
	{driver.LengthPrefix16BE, "03e9", 2, "length of 1001"},
	{driver.LengthPrefix16BE, "ffff", 1, "length of 65535"},

	{driver.LengthPrefix16LE, "0000", 2, "length of 0"},
	{driver.LengthPrefix16LE, "e903", 2, "length of 1001"},
	{driver.LengthPrefix16LE, "ffff", 2, "length of 65535"},

	{driver.LengthPrefix32BE, "00000000", 4, "length of 0"},
	{driver.LengthPrefix32BE, "000003e9", 4, "length of 1001"},
	{driver.LengthPrefix32BE, "ffffffff", 1, "length of 4294967295"},
	{driver.LengthPrefix32BE, "47455420", 1, "length of 1195725856"}, // "GET "

	{driver.LengthPrefix32LE, "00000000", 4, "length of 0"},
	{driver.LengthPrefix32LE, "e9030000", 2, "length of 1001"},
	{driver.LengthPrefix32LE, "ffffffff", 2, "length of 4294967295"},

	{driver.Varint, "00", 1, "length of 0"},
	{driver.Varint, "8000", 2, "length of 0"},
	{driver.Varint, "e907", 2, "length of 1001"}, // 0x69 + 0x07<<7
	{driver.Varint, "ffffffff0f", 2, "length of 4294967295"},
	{driver.Varint, "8080808080", 5, "more than 5 bytes"},
	{driver.Varint, "808080808001", 5, "more than 5 bytes"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestFramingOfLegalPackets(t *testing.T) {
	for _, v := range legalFrames {
		t.Run(fmt.Sprintf("%v/%s", v.framing, v.length), func(t *testing.T) {
			packet := bytes.Repeat([]byte("x"), v.size)
			frame := append(unhex(t, v.length), packet...)
			if !v.read {
				require.Equal(t, append([]byte("before"), frame...), v.framing.AppendFrame([]byte("before"), packet))
			}

			for _, b := range [][]byte{frame, append(bytes.Clone(frame), "the next one"...)} {
				got, n, err := v.framing.Split(b, v.size)
				require.NoError(t, err)
				require.Equal(t, len(frame), n)
				require.Equal(t, packet, got)
				require.Equal(t, v.size, cap(got), "appending to the packet must not write over the next frame")
			}
			for have := range len(v.length)/2 + 1 {
				got, n, err := v.framing.Split(frame[:have], v.size)
				require.NoError(t, err, "%d bytes", have)
				require.Zero(t, n, "%d bytes", have)
				require.Nil(t, got, "%d bytes", have)
			}
			_, n, err := v.framing.Split(frame[:len(frame)-1], v.size)
			require.NoError(t, err)
			require.Zero(t, n)
		})
	}
}

func TestFramingOfTwoPacketsInThreeReads(t *testing.T) {
	r := fragmentReader{framing: driver.LengthPrefix16BE, max: 1000}
	for _, read := range []string{"000268", "6900", "0121"} {
		r.feed(t, unhex(t, read))
	}
	require.NoError(t, r.err)
	require.Empty(t, r.buf)
	require.Equal(t, [][]byte{[]byte("hi"), []byte("!")}, r.packets)
}

func TestFramingOfFramesThatCannotBe(t *testing.T) {
	for _, v := range badFrames {
		t.Run(fmt.Sprintf("%v/%s", v.framing, v.bytes), func(t *testing.T) {
			frame := unhex(t, v.bytes)
			for have := range v.earlier {
				_, n, err := v.framing.Split(frame[:have], 1000)
				require.NoError(t, err, "%d bytes do not tell yet", have)
				require.Zero(t, n)
			}
			for have := v.earlier; have <= len(frame); have++ {
				packet, n, err := v.framing.Split(frame[:have], 1000)
				require.ErrorIs(t, err, driver.ErrProtocol, "%d bytes tell", have)
				require.Zero(t, n)
				require.Nil(t, packet)
			}
			_, _, err := v.framing.Split(frame, 1000)
			require.ErrorContains(t, err, v.names)
		})
	}
}

func TestFramingErrorNamesTheLengthAndTheMaximum(t *testing.T) {
	_, _, err := driver.LengthPrefix16BE.Split([]byte{0x03, 0xe9}, 1000)
	require.EqualError(t, err, "driver: protocol error: a packet length of 1001, over the maximum of 1000")
	_, _, err = driver.LengthPrefix16BE.Split([]byte{0x04}, 1000)
	require.EqualError(t, err, "driver: protocol error: a packet length of at least 1024, over the maximum of 1000")
	_, _, err = driver.Varint.Split([]byte{0x00}, 1000)
	require.EqualError(t, err, "driver: protocol error: a packet length of 0")
}

func TestFramingLimits(t *testing.T) {
	for _, v := range []struct {
		framing           driver.Framing
		name              string
		overhead, largest int
	}{
		{driver.LengthPrefix16BE, "LengthPrefix16BE", 2, 65535},
		{driver.LengthPrefix16LE, "LengthPrefix16LE", 2, 65535},
		{driver.LengthPrefix32BE, "LengthPrefix32BE", 4, math.MaxInt32},
		{driver.LengthPrefix32LE, "LengthPrefix32LE", 4, math.MaxInt32},
		{driver.Varint, "Varint", 5, math.MaxInt32},
	} {
		require.Equal(t, v.name, fmt.Sprint(v.framing))
		require.Equal(t, v.overhead, v.framing.Overhead(), v.name)
		require.Equal(t, v.largest, v.framing.MaxPacketSize(), v.name)

		packet := make([]byte, min(v.largest, 1<<21))
		require.LessOrEqual(t, len(v.framing.AppendFrame(nil, packet)), len(packet)+v.overhead, v.name)
	}
}

func TestFramingReadsAHugeLengthWithoutItsPacket(t *testing.T) {
	for frame, framing := range map[string]driver.Framing{
		"7fffffff":   driver.LengthPrefix32BE,
		"ffffff7f":   driver.LengthPrefix32LE,
		"ffffffff07": driver.Varint,
	} {
		_, n, err := framing.Split(unhex(t, frame), math.MaxInt32)
		require.NoError(t, err, framing)
		require.Zero(t, n, framing)
	}
	for frame, framing := range map[string]driver.Framing{
		"80000000":   driver.LengthPrefix32BE,
		"00000080":   driver.LengthPrefix32LE,
		"8080808008": driver.Varint,
	} {
		_, _, err := framing.Split(unhex(t, frame), math.MaxInt32)
		require.ErrorIs(t, err, driver.ErrProtocol, framing)
		require.ErrorContains(t, err, "2147483648", framing)
	}
}

func TestFramingAllocatesNothing(t *testing.T) {
	for _, framing := range framings {
		packet := make([]byte, 200)
		frame := framing.AppendFrame(nil, packet)
		dst := make([]byte, 0, len(frame))
		require.Zero(t, testing.AllocsPerRun(100, func() { framing.AppendFrame(dst, packet) }), "%v: AppendFrame", framing)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			for have := range len(frame) + 1 { // all of the ways to be short of something, and a whole frame
				if _, n, err := framing.Split(frame[:have], 1000); err != nil || (n == len(frame)) != (have == len(frame)) {
					t.Error(framing, have, n, err)
				}
			}
		}), "%v: Split", framing)
	}
}

// fragmentReader collects bytes as a driver does: it keeps what Split asks for more of, and checks what Split promises.
type fragmentReader struct {
	framing driver.Framing
	max     int

	buf     []byte
	packets [][]byte
	err     error
}

func (r *fragmentReader) feed(t testing.TB, b []byte) {
	t.Helper()
	if r.err != nil {
		return
	}
	r.buf = append(r.buf, b...)
	for {
		packet, n, err := r.framing.Split(r.buf, r.max)
		switch {
		case err != nil:
			if n != 0 || packet != nil || !errors.Is(err, driver.ErrProtocol) {
				t.Fatalf("%v: error %v with n == %d and packet %x", r.framing, err, n, packet)
			}
			r.err = err
			return
		case n == 0:
			if packet != nil || len(r.buf) >= r.framing.Overhead()+r.max {
				t.Fatalf("%v: more is asked for than the %d bytes that are there; packet %x", r.framing, len(r.buf), packet)
			}
			return
		case n < 0 || n > len(r.buf) || len(packet) == 0 || len(packet) > min(n, r.max):
			t.Fatalf("%v: n == %d of %d bytes, packet of %d", r.framing, n, len(r.buf), len(packet))
		case !aliases(packet, r.buf[:n]):
			t.Fatalf("%v: the packet is not in its frame", r.framing)
		}
		r.packets = append(r.packets, bytes.Clone(packet))
		r.buf = r.buf[n:]
	}
}

// aliases reports whether packet lies in frame.
func aliases(packet, frame []byte) bool {
	for i := range frame[:len(frame)-len(packet)+1] {
		if &frame[i] == &packet[0] {
			return true
		}
	}
	return false
}

// feedInPieces feeds stream in pieces whose sizes cuts gives, over and over.
func (r *fragmentReader) feedInPieces(t testing.TB, stream, cuts []byte) {
	t.Helper()
	for i := 0; len(stream) > 0; i++ {
		piece := 1
		if len(cuts) > 0 {
			piece = min(1+int(cuts[i%len(cuts)]), len(stream))
		}
		r.feed(t, stream[:piece])
		stream = stream[piece:]
	}
}

// FuzzFraming: any fragmentation of a valid stream gives its packets; any fragmentation of any bytes gives the same
// packets and the same verdict; and what Split promises holds throughout.
func FuzzFraming(f *testing.F) {
	for i := range framings {
		f.Add(uint8(i), uint16(300), []byte("\x00\x02hi\x02\x00hi"), []byte{0})
		f.Add(uint8(i), uint16(300), bytes.Repeat([]byte{0x80}, 10), []byte{2, 0})
		f.Add(uint8(i), uint16(3), []byte("a longer text, cut into packets of various sizes"), []byte{6, 0, 1})
		f.Add(uint8(i), uint16(65535), bytes.Repeat([]byte("0123456789"), 40), []byte{130, 0, 255, 3})
	}
	for _, v := range legalFrames {
		frame := append(unhex(f, v.length), bytes.Repeat([]byte("x"), min(v.size, 300))...)
		f.Add(indexOf(v.framing), uint16(1000), frame, []byte{1})
	}
	for _, v := range badFrames {
		f.Add(indexOf(v.framing), uint16(1000), unhex(f, v.bytes), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, limit uint16, data, cuts []byte) {
		framing := framings[int(which)%len(framings)]
		largest := max(int(limit), 1)

		// A valid stream: data, cut into packets.
		var stream []byte
		var packets [][]byte
		for rest := data; len(rest) > 0; {
			size := min(1+int(rest[0])*2, largest, len(rest))
			packets = append(packets, rest[:size])
			stream = framing.AppendFrame(stream, rest[:size])
			rest = rest[size:]
		}
		valid := fragmentReader{framing: framing, max: largest}
		valid.feedInPieces(t, stream, cuts)
		if valid.err != nil || len(valid.buf) > 0 {
			t.Fatalf("%v: %d bytes of a valid stream are left: %v", framing, len(valid.buf), valid.err)
		}
		if !equalPackets(packets, valid.packets) {
			t.Fatalf("%v: %d packets were sent, and others were received: %d", framing, len(packets), len(valid.packets))
		}

		// Any bytes.
		whole := fragmentReader{framing: framing, max: largest}
		whole.feed(t, data)
		pieces := fragmentReader{framing: framing, max: largest}
		pieces.feedInPieces(t, data, cuts)
		if !equalPackets(whole.packets, pieces.packets) {
			t.Fatalf("%v: %d packets at once, and others in pieces: %d", framing, len(whole.packets), len(pieces.packets))
		}
		if (whole.err == nil) != (pieces.err == nil) {
			t.Fatalf("%v: %v at once, %v in pieces", framing, whole.err, pieces.err)
		}
	})
}

func indexOf(framing driver.Framing) uint8 {
	for i := range framings {
		if framings[i] == framing {
			return uint8(i)
		}
	}
	panic("unknown framing")
}

func equalPackets(a, b [][]byte) bool {
	return bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) && fmt.Sprint(sizes(a)) == fmt.Sprint(sizes(b))
}

func sizes(packets [][]byte) []int {
	s := make([]int, len(packets))
	for i := range packets {
		s[i] = len(packets[i])
	}
	return s
}

// lines is a framing of an application's own: a packet is a line of text.
type lines struct{}

func (lines) Overhead() int      { return 1 }
func (lines) MaxPacketSize() int { return 1 << 20 }

// AppendFrame writes packet, in which the application puts no newline, and ends the line.
func (lines) AppendFrame(dst, packet []byte) []byte {
	return append(append(dst, packet...), '\n')
}

func (lines) Split(b []byte, maxPacketSize int) (packet []byte, n int, err error) {
	// What is searched is bounded, and so is what the driver has to keep.
	end := bytes.IndexByte(b[:min(len(b), maxPacketSize+1)], '\n')
	switch {
	case end == 0:
		return nil, 0, fmt.Errorf("%w: empty line", driver.ErrProtocol)
	case end > 0:
		return b[:end:end], end + 1, nil
	case len(b) > maxPacketSize:
		return nil, 0, fmt.Errorf("%w: line longer than %d bytes", driver.ErrProtocol, maxPacketSize)
	}
	return nil, 0, nil
}

// An application can bring its own wire format. Here a packet is a line of text.
func ExampleFraming() {
	cfg, err := driver.Config{Framing: lines{}, MaxPacketSize: 80}.WithDefaults() // driver.New does this
	if err != nil {
		fmt.Println(err)
		return
	}

	var stream []byte
	for _, packet := range []string{"login alice", "move 3 4"} {
		stream = cfg.Framing.AppendFrame(stream, []byte(packet))
	}
	stream = append(stream, "say hel"...) // and the rest is on its way

	for {
		packet, n, err := cfg.Framing.Split(stream, cfg.MaxPacketSize)
		if n == 0 || err != nil {
			fmt.Printf("%d bytes wait, error: %v\n", len(stream), err)
			return
		}
		fmt.Printf("%s\n", packet)
		stream = stream[n:]
	}
	// Output:
	// login alice
	// move 3 4
	// 7 bytes wait, error: <nil>
}

func TestFramingOfTheApplicationsOwn(t *testing.T) {
	stream := "login alice\nmove 3 4\nsay hello\n"
	for size := range len(stream) {
		r := fragmentReader{framing: lines{}, max: 11}
		r.feedInPieces(t, []byte(stream), []byte{byte(size)})
		require.NoError(t, r.err)
		require.Empty(t, r.buf)
		require.Equal(t, strings.Fields("login_alice move_3_4 say_hello"),
			strings.Fields(strings.ReplaceAll(string(bytes.Join(r.packets, []byte("\n"))), " ", "_")))
	}
	for _, bad := range []string{"\n", "twelve bytes", "twelve bytes\n"} {
		r := fragmentReader{framing: lines{}, max: 11}
		r.feedInPieces(t, []byte(bad), nil)
		require.ErrorIs(t, r.err, driver.ErrProtocol, "%q", bad)
	}
}
