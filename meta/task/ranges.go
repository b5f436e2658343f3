package task

import (
	"slices"
	"sort"
)

// Ranges are in order and do not touch each other.

// at is the first range that ends at i or behind.
func at(list []Range, i uint32) int {
	return sort.Search(len(list), func(n int) bool { return list[n].Last >= i })
}

func contains(list []Range, i uint32) bool {
	n := at(list, i)
	return n < len(list) && list[n].First <= i
}

// insert returns the ranges with i.
func insert(list []Range, i uint32) []Range {
	n := at(list, i)
	if n < len(list) && list[n].First <= i {
		return list
	}
	list = slices.Clone(list)
	before := n > 0 && list[n-1].Last+1 == i
	behind := n < len(list) && list[n].First == i+1
	switch {
	case before && behind:
		list[n-1].Last = list[n].Last
		return slices.Delete(list, n, n+1)
	case before:
		list[n-1].Last = i
		return list
	case behind:
		list[n].First = i
		return list
	}
	return slices.Insert(list, n, Range{i, i})
}

// remove returns the ranges without i.
func remove(list []Range, i uint32) []Range {
	n := at(list, i)
	if n == len(list) || list[n].First > i {
		return list
	}
	list = slices.Clone(list)
	r := list[n]
	switch {
	case r.First == i && r.Last == i:
		return slices.Delete(list, n, n+1)
	case r.First == i:
		list[n].First++
		return list
	case r.Last == i:
		list[n].Last--
		return list
	}
	list[n].Last = i - 1
	return slices.Insert(list, n+1, Range{i + 1, r.Last})
}
