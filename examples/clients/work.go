// go run work.go
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

var client = http.Client{Timeout: 90 * time.Second}

func or(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func post(route string, body map[string]any) []byte {
	text, err := json.Marshal(body)
	if err != nil {
		log.Fatal(err)
	}
	pool := or("POOL_URL", "http://127.0.0.1:3000")
	answer, err := client.Post(pool+"/"+route, "application/json", bytes.NewReader(text))
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %v", route, content, err)
	}
	return content
}

func main() {
	page := or("PAGE_URL", "data:text/html,<title>Hello from the pool</title><h1>Hello</h1>")
	var scraped struct {
		Data []struct{ Results []struct{ HTML string } }
	}
	elements := []map[string]string{{"selector": "title"}}
	if err := json.Unmarshal(post("scrape", map[string]any{"url": page, "elements": elements}), &scraped); err != nil {
		log.Fatal(err)
	}
	fmt.Println(scraped.Data[0].Results[0].HTML)

	for route, options := range map[string]map[string]any{
		"screenshot": {"fullPage": true},
		"pdf":        {"format": "A4"},
	} {
		name := map[string]string{"screenshot": "work.png", "pdf": "work.pdf"}[route]
		content := post(route, map[string]any{"url": page, "options": options})
		if err := os.WriteFile(name, content, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}
