package tcp

const ioctlUnacked = 0x40046677 // FIONWRITE, sys/filio.h
