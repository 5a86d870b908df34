package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// check says how many objects a file holds. An unknown or doubled field, a wrong type or an unknown kind is an error
// that names the object; kinds of the Prometheus operator are known. What an API server asks for besides (required
// fields, ranges) is for a validator with Kubernetes' schemas.
func check(name string) (int, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	types := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(types), monitoring.AddToScheme(types)); err != nil {
		return 0, err
	}
	decoder := serializer.NewCodecFactory(types, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(file))
	count, problems := 0, []error(nil)
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return count, errors.Join(problems...)
		}
		if err != nil {
			return count, err
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		count++
		if _, kind, err := decoder.Decode(document, nil, nil); err != nil {
			problems = append(problems, fmt.Errorf("object %d (%v): %w", count, kind, err))
		}
	}
}
