package vfs

// Seed is for the tests from outside the package.
var Seed = seed

// ShareAfter is how many answers an open file needs before S is taken.
const ShareAfter = shareAfter

// Eager has S taken again as soon as it went: the random tests shall meet it often.
func Eager(fs *FS) { fs.apart = 0 }
