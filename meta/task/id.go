package task

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"dos/meta"
)

// An ID names a task. Jobs have increasing numbers. A job that is an array has
// elements, which are tasks of their own: element 3 of job 12 is written 12_3, and
// 12 is then the array. Compare IDs with ==.
type ID struct {
	Job uint64 `cbor:"1,keyasint,omitempty"`
	// Place is zero for a job, and one more than the index for an element of an array.
	Place uint32 `cbor:"2,keyasint,omitempty"`
}

// Element is the ID of an element of the array, by its index.
func (id ID) Element(index int) ID { return ID{id.Job, uint32(index) + 1} }

// Index is the index of an element; ok is false for a job.
func (id ID) Index() (index int, ok bool) { return int(id.Place) - 1, id.Place != 0 }

// Array is the ID of the job that the element is of, itself for a job.
func (id ID) Array() ID { return ID{Job: id.Job} }

// Compare orders IDs: a job before its elements, and these by their index.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Job, other.Job), cmp.Compare(id.Place, other.Place))
}

func (id ID) String() string {
	if i, ok := id.Index(); ok {
		return fmt.Sprintf("%d_%d", id.Job, i)
	}
	return strconv.FormatUint(id.Job, 10)
}

// ParseID reads what String writes, and nothing else, so that one task has one name.
func ParseID(text string) (ID, error) {
	job, index, element := strings.Cut(text, "_")
	var id ID
	n, err := strconv.ParseUint(job, 10, 64)
	id.Job = n
	if err == nil && element {
		var i uint64
		if i, err = strconv.ParseUint(index, 10, 32); err == nil && i > IndexMax {
			err = strconv.ErrRange
		}
		id.Place = uint32(i) + 1
	}
	if err != nil || id.Job == 0 || id.String() != text {
		return ID{}, fmt.Errorf("%.40q is no task: an id is a number, or ARRAY_INDEX: %w", text, meta.Invalid)
	}
	return id, nil
}
