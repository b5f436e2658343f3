// Package session knows who takes part: sessions and the stripe IDs they reserved.
package session
