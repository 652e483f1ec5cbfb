package fence

import "strconv"

// ParseToken reads a token from text, such as a header or stored metadata. It
// takes what strconv.FormatInt writes and nothing else: decimal digits without a
// sign, spaces or leading zeros, from 1 to 9223372036854775807. Everything else is
// refused with ErrInvalidToken.
func ParseToken(text string) (int64, error) {
	token, err := strconv.ParseInt(text, 10, 64)
	if err != nil || token < 1 || text[0] < '1' || text[0] > '9' {
		return 0, invalidToken(text)
	}
	return token, nil
}
