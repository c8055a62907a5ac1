package tcp

// DescriptorLimit is how many handles a process may have open: no limit of its own here.
func DescriptorLimit() int { return mostDescriptors }
