package client

import (
	"cmp"
	"unicode/utf8"
)

// The checks of this file are of what a message cannot carry. All others are
// made by the cluster, which has the bounds.

const notText = "must be UTF-8 without control characters"

// field is a field of a request by its name on the wire, and its text.
type field struct{ name, text string }

// checkTexts says which field cannot be sent, nil if all can.
func checkTexts(fields ...field) *failure {
	for _, f := range fields {
		if !utf8.ValidString(f.text) {
			return badField(f.name, f.text, notText)
		}
	}
	return nil
}

func checkEntries(name string, m map[string]string) *failure {
	for key, value := range m {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return badField(name, key, "must be UTF-8")
		}
	}
	return nil
}

func checkAcquire(req *AcquireRequest) *failure {
	return cmp.Or(
		checkTexts(field{"lock_id", req.LockID}, field{"client_id", req.ClientID}, field{"request_id", req.RequestID}),
		checkEntries("metadata", req.Metadata),
	)
}

func checkListing(req *GetLocksRequest) *failure {
	fault := checkTexts(field{"start_after", req.StartAfter})
	if f := req.Filter; f != nil {
		fault = cmp.Or(fault,
			checkTexts(field{"lock_id_pattern", f.LockIDPattern}, field{"owner_id_pattern", f.OwnerIDPattern}),
			checkEntries("metadata_filter", f.MetadataFilter),
		)
	}
	return fault
}
