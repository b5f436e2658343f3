package vfs

// Seed is for the tests from outside the package.
var Seed = seed
