package tcp

const ioctlUnacked = 0x5411 // SIOCOUTQ, linux/sockios.h
