// A protobuf message as the engine reads it: fields by name, defaults included. The binding builds it from any Python
// message by its descriptor, so the engine needs no libprotobuf and no list of fields of its own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sparknet {

class Message;

// The values of one field; one of the vectors is in use. Enums are the names of their values, bools integers.
struct FieldValue {
  std::vector<int64_t> integers;
  std::vector<double> reals;
  std::vector<std::string> texts;
  std::vector<Message> messages;
};

// The fields of a message type and the default of each that has one (repeated fields: none).
struct MessageSchema {
  std::string name;
  std::map<std::string, FieldValue> defaults;
  std::map<std::string, std::shared_ptr<const MessageSchema>> children;
};

// Copies share their fields until one of them is written to: a net's message is copied layer by layer.
class Message {
 public:
  Message();
  explicit Message(std::shared_ptr<const MessageSchema> schema) : schema_(std::move(schema)) {}

  // Building, for the binding and for the net's automatic Split layers.
  FieldValue& field(const std::string& name);

  // An empty message of this type, and of the type that field `name` has.
  Message empty_like() const { return Message(schema_); }
  Message empty(const std::string& name) const;

  const std::string& type_name() const { return schema_->name; }
  // Whether the field was written (a repeated one: is not empty).
  bool has(const std::string& name) const { return fields_ && fields_->count(name) != 0; }

  // The value, or the default. Asking for a field that the type does not have throws std::logic_error.
  int64_t integer(const std::string& name) const;
  double real(const std::string& name) const;
  bool flag(const std::string& name) const { return integer(name) != 0; }
  const std::string& text(const std::string& name) const;  // strings, and the names of enum values
  const Message& message(const std::string& name) const;   // all defaults when absent
  const std::vector<int64_t>& integers(const std::string& name) const;
  const std::vector<double>& reals(const std::string& name) const;
  const std::vector<std::string>& texts(const std::string& name) const;
  const std::vector<Message>& messages(const std::string& name) const;

 private:
  const FieldValue& value(const std::string& name) const;

  std::shared_ptr<const MessageSchema> schema_;
  std::shared_ptr<std::map<std::string, FieldValue>> fields_;             // null: none
  mutable std::map<std::string, std::shared_ptr<const Message>> absent_;  // made on first use
};

}  // namespace sparknet
