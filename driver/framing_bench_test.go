package driver_test

import (
	"fmt"
	"testing"
)

func BenchmarkFramingSplit(b *testing.B) {
	for _, framing := range framings {
		for _, size := range []int{32, 1024} {
			b.Run(fmt.Sprintf("framing=%v/size=%d", framing, size), func(b *testing.B) {
				frame := framing.AppendFrame(nil, make([]byte, size))
				b.SetBytes(int64(len(frame)))
				b.ReportAllocs()
				for b.Loop() {
					if _, n, err := framing.Split(frame, size); n != len(frame) || err != nil {
						b.Fatal(n, err)
					}
				}
			})
		}
	}
}

func BenchmarkFramingAppend(b *testing.B) {
	for _, framing := range framings {
		for _, size := range []int{32, 1024} {
			b.Run(fmt.Sprintf("framing=%v/size=%d", framing, size), func(b *testing.B) {
				packet := make([]byte, size)
				dst := make([]byte, 0, size+framing.Overhead())
				b.SetBytes(int64(len(framing.AppendFrame(dst, packet))))
				b.ReportAllocs()
				for b.Loop() {
					framing.AppendFrame(dst, packet)
				}
			})
		}
	}
}
