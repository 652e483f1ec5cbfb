package client

import "fmt"

// ValidationError says which field of a request or of a configuration is out
// of bounds. Calls return it inside a *ClientError that is ErrInvalidArgument
// or ErrInvalidTTL: find it with errors.As.
type ValidationError struct {
	// Field is the name of the field.
	Field string

	// Value is what it was set to. It is not part of the text.
	Value any

	// Message says what the field should have been.
	Message string
}

// NewValidationError returns the error of one field.
func NewValidationError(field string, value any, message string) *ValidationError {
	return &ValidationError{Field: field, Value: value, Message: message}
}

// Error names the field and says what is wrong with it.
func (e *ValidationError) Error() string {
	return fmt.Sprintf("validation error for field '%s': %s", e.Field, e.Message)
}
