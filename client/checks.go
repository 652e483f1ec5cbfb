package client

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/raftlock/raftlock/internal/input"
	"github.com/raftlock/raftlock/pb"
)

// The checks that are made before anything is sent: of the bounds that no
// cluster can move. The others are the cluster's.

// faulty is the refusal of a field, nil for no fault.
func faulty(fault *input.Fault) *failure {
	if fault == nil {
		return nil
	}
	f := failed(pb.ErrorCode_INVALID_ARGUMENT, outcomeNotProposed, "%s", fault.Why)
	f.details["field"], f.details["value"] = fault.Field, fault.Value
	if fault.Max != "" {
		f.details["min"], f.details["max"] = fault.Min, fault.Max
	}
	f.final = true
	return f
}

// tooLarge is the refusal of a message that the client's own settings forbid.
func tooLarge(size, limit int) *failure {
	return faulty(input.OutOfRange("request", strconv.Itoa(size), "0", strconv.Itoa(limit)))
}

func nilRequest() *failure {
	f := failed(pb.ErrorCode_INVALID_ARGUMENT, outcomeNotProposed, "request is nil")
	f.final = true
	return f
}

// checkIDs checks who asks for what.
func checkIDs(lock, client string) *input.Fault {
	return cmp.Or(input.ID("lock_id", lock), input.ID("client_id", client))
}

func checkAcquire(req *AcquireRequest) *input.Fault {
	fault := cmp.Or(
		checkIDs(req.LockID, req.ClientID), input.Request(req.RequestID),
		input.Priority(req.Priority), input.Entries(len(req.Metadata)),
	)
	if fault != nil {
		return fault
	}
	for _, key := range slices.Sorted(maps.Keys(req.Metadata)) {
		if fault := input.Entry(key, req.Metadata[key]); fault != nil {
			return fault
		}
	}
	return nil
}

func checkListing(req *GetLocksRequest) *input.Fault {
	fault := cmp.Or(
		input.Count("limit", req.Limit), input.Count("offset", req.Offset),
		input.StartAfter(req.StartAfter), checkText("start_after", req.StartAfter),
	)
	f := req.Filter
	if f == nil || fault != nil {
		return fault
	}
	fault = cmp.Or(
		input.Pattern("lock_id_pattern", f.LockIDPattern), input.Pattern("owner_id_pattern", f.OwnerIDPattern),
		checkText("lock_id_pattern", f.LockIDPattern), checkText("owner_id_pattern", f.OwnerIDPattern),
	)
	for key, value := range f.MetadataFilter {
		fault = cmp.Or(fault, checkText("metadata_filter", key), checkText("metadata_filter", value))
	}
	return fault
}

// checkText checks what a message cannot carry: only UTF-8 has a place in it.
func checkText(name, text string) *input.Fault {
	if utf8.ValidString(text) {
		return nil
	}
	return input.Bad(name, text, "must be UTF-8")
}
