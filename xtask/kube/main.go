// Command kube does two things that helm's own program does not do without a cluster.
//
//	kube check FILE...                              decodes manifests strictly, with the API's own Go types
//	kube notes RELEASE NAMESPACE CHART [VALUES...]  prints the notes that an installation ends with
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(words []string) error {
	switch {
	case len(words) >= 2 && words[0] == "check":
		problems := []error(nil)
		for _, name := range words[1:] {
			count, err := check(name)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
				continue
			}
			fmt.Printf("%s: %d objects\n", name, count)
		}
		return errors.Join(problems...)
	case len(words) >= 4 && words[0] == "notes":
		text, err := notes(words[1], words[2], words[3], words[4:])
		fmt.Print(text)
		return err
	}
	return errors.New("usage: kube check FILE... | kube notes RELEASE NAMESPACE CHART [VALUES...]")
}
