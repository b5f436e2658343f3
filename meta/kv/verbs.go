package kv

import (
	"fmt"
	"strconv"
	"strings"

	"dos/meta"
	"dos/meta/state"
)

// Verbs are what a transaction (package txn) may do here. Each first argument names
// a table and, after a slash, a key.
//
//	if T/KEY version N   the version is N; 0: it does not exist
//	if T/KEY absent
//	if T/KEY present
//	put T/KEY            the data is put; the answer is the version
//	del T/KEY
var Verbs = map[string]func(tx *state.Tx, args []string, data []byte) (answer string, err error){
	"if":  condition,
	"put": putVerb,
	"del": delVerb,
}

func target(args []string) (table, key string, err error) {
	if len(args) > 0 {
		var ok bool
		if table, key, ok = strings.Cut(args[0], "/"); ok {
			return table, key, nil
		}
	}
	return "", "", fmt.Errorf("no TABLE/KEY: %w", meta.Invalid)
}

func condition(tx *state.Tx, args []string, _ []byte) (string, error) {
	table, key, err := target(args)
	if err != nil {
		return "", err
	}
	c, err := begin(tx, table)
	if err != nil {
		return "", err
	}
	if err := checkKey(key); err != nil {
		return "", err
	}
	switch what := strings.Join(args[1:], " "); {
	case what == "absent":
		_, _, err = c.at(key, new(uint64))
	case what == "present":
		if _, was, _ := c.at(key, nil); !was {
			err = fmt.Errorf("%.80q does not exist: %w", key, meta.Conflict)
		}
	case len(args) == 3 && args[1] == "version":
		var version uint64
		if version, err = strconv.ParseUint(args[2], 10, 64); err != nil {
			return "", fmt.Errorf("version %.80q: %w", args[2], meta.Invalid)
		}
		_, _, err = c.at(key, &version)
	default:
		err = fmt.Errorf("%.80q is not version N, absent or present: %w", what, meta.Invalid)
	}
	return "", err
}

// newMode is the mode of what a transaction makes: its table's bounds who gets there.
const newMode = 0o644

func putVerb(tx *state.Tx, args []string, data []byte) (string, error) {
	table, key, err := target(args)
	if err != nil || len(args) != 1 {
		return "", fmt.Errorf("put %.80q: %w", args, meta.Invalid)
	}
	t, err := loadTable(tx, table)
	if err != nil {
		return "", err
	}
	w, err := put(tx, Put{Table: table, Key: key, Data: data, UID: t.UID, GID: t.GID, Mode: newMode})
	return strconv.FormatUint(w.Version, 10), err
}

func delVerb(tx *state.Tx, args []string, _ []byte) (string, error) {
	table, key, err := target(args)
	if err != nil || len(args) != 1 {
		return "", fmt.Errorf("del %.80q: %w", args, meta.Invalid)
	}
	_, err = remove(tx, Delete{Table: table, Key: key})
	return "", err
}
